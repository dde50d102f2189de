//! Ceilings of a GPU: the simplest kernels that move or multiply as much as can be, timed by events on one stream.
//!
//! Sizes are as large as memory and time allow, beginning small: a device that is slow, as one that runs kernels on
//! the host, ends with small problems, which the record says. Operands are random: zeros let a chip clock higher than any model does.

mod products;

use std::sync::Arc;

use crate::clock::{Clock, Monotonic, Nanos};
use crate::device::ceilings::{CeilingWish, Passes, Told, bytes_text};
use crate::device::cuda::driver::{Event, Function, Stream};
use crate::device::cuda::gpu::{CudaSpec, Gpu};
use crate::device::cuda::launch::{Arg, Launch};
use crate::device::cuda::matmul::MatmulChoice;
use crate::device::cuda::memory::{Buffer, Pinned};
use crate::device::error::DeviceError;
use crate::device::source::Element;
use crate::nvidia::Libraries;
use crate::record::ceilings::{Ceiling, CeilingKind, CeilingNote, CeilingsRecord};

/// Threads of a block of every kernel here.
const BLOCK: u32 = 256;
/// Blocks a multiprocessor that bandwidth is tried with; the fastest counts.
const GRIDS: [usize; 3] = [4, 8, 16];
/// Largest buffer, bytes, and the share of free memory that one of three may take.
const LARGEST_BUFFER: u64 = 4 << 30;
const SHARE_OF_FREE: u64 = 8;
/// Smallest buffer, and how sizes grow.
const SMALLEST_BUFFER: u64 = 4 << 20;
const GROWTH: u64 = 4;
/// A memory bandwidth is one only where a buffer has this many times the L2 cache.
const BEYOND_CACHE: u64 = 8;
/// Pinned host memory that is copied, bytes.
const PINNED: u64 = 256 << 20;
/// Fewest and most measured passes of a ceiling.
const FEWEST: u32 = 5;
const MOST: u32 = 200;
/// Nodes of the recording that is played: as many kernels as a step of a model of 32 layers.
const NODES: u32 = 260;
/// Launches and plays that are timed together.
const TOGETHER: u32 = 20;
/// A kernel that repeats itself runs so long, seconds: the launch itself no longer counts.
const LONG: f64 = 2e-3;
/// Whose code.
const OWN: &str = "plimsoll";

/// Measures the ceilings of a GPU. `spec` says which, whose products, whether recordings may be played, and where compiled kernels are
/// kept; its element type is not asked.
///
/// # Errors
/// When the GPU or its kernels cannot be made ready, or the driver fails.
pub fn measure(libraries: &Libraries, spec: &CudaSpec, wish: &CeilingWish, told: Told<'_>) -> Result<CeilingsRecord, DeviceError> {
    let open = |element| Gpu::open(libraries, &CudaSpec { element, matmul: MatmulChoice::Own, ..spec.clone() });
    let gpu = open(wish.element.unwrap_or(Element::Bf16))?;
    let clock = Monotonic::start();
    let mut sink = Sink { told, ceilings: Vec::new(), notes: Vec::new() };
    let bench = Bench::new(&gpu, wish)?;
    bench.memory(&mut sink)?;
    bench.cache(&mut sink)?;
    bench.products(libraries, spec.matmul, &mut sink)?;
    bench.matrix_units(&mut sink)?;
    let mut making_ready = Nanos::ZERO;
    if wish.wants(CeilingKind::MatrixProduct) && wish.element.is_none() {
        let begun = clock.now();
        let wide = open(Element::F32)?;
        making_ready = clock.now().since(begun);
        let bench = Bench::new(&wide, wish)?;
        bench.products(libraries, spec.matmul, &mut sink)?;
        bench.library_types(libraries, spec.matmul, &mut sink);
    }
    bench.host(&mut sink)?;
    bench.launches(spec.graphs, &mut sink)?;
    Ok(CeilingsRecord {
        device: gpu.identity().name.clone(),
        instructions: gpu.identity().instructions.clone(),
        labels: Vec::new(),
        ceilings: sink.ceilings,
        notes: sink.notes,
        seconds: clock.now().since(making_ready).as_secs_f64(),
    })
}

/// What was measured so far.
struct Sink<'a> {
    told: Told<'a>,
    ceilings: Vec<Ceiling>,
    notes: Vec<CeilingNote>,
}

impl Sink<'_> {
    fn keep(&mut self, ceiling: Ceiling) {
        (self.told)(&ceiling);
        self.ceilings.push(ceiling);
    }

    fn note(&mut self, kind: CeilingKind, why: impl Into<String>) {
        self.notes.push(CeilingNote { kind, why: why.into() });
    }
}

/// A GPU being measured.
struct Bench<'a> {
    gpu: &'a Arc<Gpu>,
    stream: Stream,
    begin: Event,
    end: Event,
    wish: &'a CeilingWish,
}

impl<'a> Bench<'a> {
    fn new(gpu: &'a Arc<Gpu>, wish: &'a CeilingWish) -> Result<Self, DeviceError> {
        let (stream, begin, end) = (Stream::new(&gpu.context)?, Event::timed(&gpu.context)?, Event::timed(&gpu.context)?);
        Ok(Self { gpu, stream, begin, end, wish })
    }

    /// Seconds of what `work` queues.
    fn seconds(&self, mut work: impl FnMut() -> Result<(), DeviceError>) -> Result<f64, DeviceError> {
        self.begin.record(&self.stream)?;
        work()?;
        self.end.record(&self.stream)?;
        // Events tell time in steps of about half a microsecond: nothing takes none.
        Ok(self.end.seconds_since(&self.begin)?.max(1e-7))
    }

    /// As many passes as fit into `share` of a ceiling's time, after one that does not count.
    fn passes(&self, share: f64, mut work: impl FnMut() -> Result<(), DeviceError>) -> Result<Passes, DeviceError> {
        let (mut times, mut spent) = (Vec::new(), 0.0);
        self.seconds(&mut work)?;
        while times.len() < FEWEST as usize || (spent < share * self.wish.seconds_each && times.len() < MOST as usize) {
            let seconds = self.seconds(&mut work)?;
            spent += seconds;
            times.push(seconds);
        }
        Ok(Passes::new(times))
    }

    /// Whether a few passes of the next size, which takes `seconds`, still fit into a ceiling's time.
    fn fits(&self, seconds: f64) -> bool {
        seconds * f64::from(FEWEST + 1) <= self.wish.seconds_each
    }

    /// A kernel of this room's own; looked up before anything is timed.
    fn kernel(&self, name: &str) -> Result<Function, DeviceError> {
        self.gpu.kernel("ceilings", name)
    }

    fn start(&self, function: Function, blocks: usize, args: &[Arg]) -> Result<(), DeviceError> {
        Launch::over(&self.stream, function, blocks, BLOCK).with(args)
    }

    fn multiprocessors(&self) -> usize {
        self.gpu.facts.multiprocessors as usize
    }

    /// A buffer of random numbers of the GPU's element type.
    fn random(&self, what: &str, bytes: u64, seed: u64) -> Result<Buffer, DeviceError> {
        let buffer = Buffer::new(&self.gpu.context, what, bytes)?;
        let count = bytes / self.gpu.spec.element.bytes() as u64;
        let args = [buffer.at(0).into(), seed.into(), 0_u64.into(), count.into(), 0.0_f32.into(), 1.0_f32.into()];
        self.start(self.gpu.kernels.random_weights, 8 * self.multiprocessors(), &args)?;
        Ok(buffer)
    }

    /// The fastest of several grids of one kernel.
    fn moving(&self, name: &str, args: &[Arg]) -> Result<Passes, DeviceError> {
        let (function, mut best) = (self.kernel(name)?, None::<Passes>);
        for blocks in GRIDS {
            let share = 1.0 / GRIDS.len() as f64;
            let passes = self.passes(share, || self.start(function, blocks * self.multiprocessors(), args))?;
            if best.as_ref().is_none_or(|best| passes.fastest() < best.fastest()) {
                best = Some(passes);
            }
        }
        Ok(best.expect("there is a grid"))
    }

    /// The largest buffer that memory and time allow.
    fn buffer_bytes(&self) -> Result<u64, DeviceError> {
        let (free, _) = self.gpu.context.memory()?;
        let most = LARGEST_BUFFER.min(free / SHARE_OF_FREE);
        let mut bytes = SMALLEST_BUFFER;
        while bytes * GROWTH <= most {
            let mut tried = None;
            let seconds = self.seconds(|| {
                tried = Some(self.random("the buffer that memory is measured with", bytes, 1)?);
                Ok(())
            })?;
            if !self.fits(GROWTH as f64 * seconds) {
                break;
            }
            bytes *= GROWTH;
        }
        Ok(bytes)
    }

    fn memory(&self, sink: &mut Sink<'_>) -> Result<(), DeviceError> {
        let kinds = [CeilingKind::MemoryRead, CeilingKind::MemoryCopy, CeilingKind::MemoryTriad];
        if !kinds.iter().any(|kind| self.wish.wants(*kind)) {
            return Ok(());
        }
        let bytes = self.buffer_bytes()?;
        if bytes < BEYOND_CACHE * self.gpu.facts.l2_bytes {
            let (size, cache) = (bytes_text(bytes), bytes_text(self.gpu.facts.l2_bytes));
            let why = format!(
                "{size} is less than {BEYOND_CACHE} times the L2 cache of {cache}: partly the cache's bandwidth. Free memory, or give more `--seconds`"
            );
            sink.note(CeilingKind::MemoryRead, why);
        }
        const WHAT: &str = "the buffer that memory is measured with";
        let [a, b, c] = [self.random(WHAT, bytes, 1)?, self.random(WHAT, bytes, 2)?, self.random(WHAT, bytes, 3)?];
        let (count, sum) = (Arg::from(bytes / 16), Buffer::new(&self.gpu.context, "a sum", 16)?);
        let [a, b, c, sum] = [a.at(0), b.at(0), c.at(0), sum.at(0)].map(Arg::from);
        let each: [(CeilingKind, &str, &[Arg], u64); 3] = [
            (kinds[0], "read_memory", &[sum, b, count, 1_u32.into()], 1),
            (kinds[1], "copy_memory", &[a, b, count], 2),
            (kinds[2], "triad", &[a, b, c, 0.5_f32.into(), count], 3),
        ];
        for (kind, name, args, buffers) in each {
            if self.wish.wants(kind) {
                let moved = (buffers * bytes) as f64;
                sink.keep(self.moving(name, args)?.ceiling(kind, moved, OWN, bytes_text(bytes)));
            }
        }
        Ok(())
    }

    /// A quarter of the cache: large parts keep their caches in halves that do not hold everything.
    fn cache(&self, sink: &mut Sink<'_>) -> Result<(), DeviceError> {
        let (kind, bytes) = (CeilingKind::CacheRead, self.gpu.facts.l2_bytes / 4 / 16 * 16);
        if !self.wish.wants(kind) {
            return Ok(());
        }
        if bytes == 0 {
            sink.note(kind, "the driver does not say how large the L2 cache is");
            return Ok(());
        }
        let buffer = self.random("a part of the L2 cache", bytes, 4)?;
        let sum = Buffer::new(&self.gpu.context, "a sum", 16)?;
        let (sum, at, count) = (Arg::from(sum.at(0)), Arg::from(buffer.at(0)), Arg::from(bytes / 16));
        let read = self.kernel("read_memory")?;
        let repeats = self.repeated(|repeats| self.start(read, 8 * self.multiprocessors(), &[sum, at, count, repeats.into()]))?;
        let passes = self.moving("read_memory", &[sum, at, count, repeats.into()])?;
        sink.keep(passes.ceiling(kind, (bytes * u64::from(repeats)) as f64, OWN, bytes_text(bytes)));
        Ok(())
    }

    /// How often a kernel shall repeat itself to run long, within a ceiling's time.
    fn repeated(&self, mut work: impl FnMut(u32) -> Result<(), DeviceError>) -> Result<u32, DeviceError> {
        let mut repeats = 1;
        loop {
            let seconds = self.seconds(|| work(repeats))?;
            if seconds > LONG || repeats >= 1 << 16 || !self.fits(4.0 * seconds) {
                return Ok(repeats);
            }
            repeats *= 4;
        }
    }

    fn matrix_units(&self, sink: &mut Sink<'_>) -> Result<(), DeviceError> {
        let kind = CeilingKind::MatrixUnits;
        if !self.wish.wants(kind) || self.gpu.spec.element == Element::F32 {
            return Ok(());
        }
        // Operations of a warp and iteration: eight products of 16 x 8 x 16.
        const OPERATIONS: f64 = 8.0 * 4096.0;
        let (blocks, warps) = (8 * self.multiprocessors(), f64::from(BLOCK / 32));
        let sum = Buffer::new(&self.gpu.context, "a sum", 16)?;
        let peak = self.kernel("mma_peak")?;
        let launch = |iterations: u32| self.start(peak, blocks, &[sum.at(0).into(), iterations.into()]);
        let iterations = self.repeated(launch)?;
        let passes = self.passes(1.0, || launch(iterations))?;
        let operations = OPERATIONS * warps * blocks as f64 * f64::from(iterations);
        let ceiling = passes.ceiling(kind, operations, OWN, "registers".to_owned());
        sink.keep(Ceiling { element: Some(Element::Bf16.name().to_owned()), ..ceiling });
        Ok(())
    }

    /// Pinned memory both ways; first from the device, so that what goes back is random.
    fn host(&self, sink: &mut Sink<'_>) -> Result<(), DeviceError> {
        let kinds = [CeilingKind::DeviceToHost, CeilingKind::HostToDevice];
        if !kinds.iter().any(|kind| self.wish.wants(*kind)) {
            return Ok(());
        }
        let bytes = PINNED.min(self.buffer_bytes()?);
        let device = self.random("what is copied to the host", bytes, 8)?;
        let mut host = Pinned::new(&self.gpu.context, bytes as usize)?;
        let to_host = self.passes(1.0, || device.read(&self.stream, 0, host.bytes_mut()))?;
        sink.keep(to_host.ceiling(kinds[0], bytes as f64, "driver", bytes_text(bytes)));
        let to_device = self.passes(1.0, || device.write(&self.stream, 0, host.bytes()))?;
        sink.keep(to_device.ceiling(kinds[1], bytes as f64, "driver", bytes_text(bytes)));
        Ok(())
    }

    /// What starting a kernel costs: one by one, and recorded.
    fn launches(&self, graphs: bool, sink: &mut Sink<'_>) -> Result<(), DeviceError> {
        let kinds = [CeilingKind::Launch, CeilingKind::GraphReplay, CeilingKind::GraphNode];
        if !kinds.iter().any(|kind| self.wish.wants(*kind)) {
            return Ok(());
        }
        let function = self.kernel("idle")?;
        let idle = |count: u32| (0..count).try_for_each(|_| Launch::over(&self.stream, function, 1, 1).with(&[]));
        let launched = self.passes(1.0, || idle(NODES))?;
        sink.keep(launched.ceiling(kinds[0], f64::from(NODES), "driver", format!("{NODES} launches")));
        if !graphs {
            sink.note(kinds[1], "no recording was to be played (`--no-graphs`)");
            return Ok(());
        }
        let played = |nodes: u32| {
            self.stream.begin_capture()?;
            let recorded = idle(nodes);
            let graph = self.stream.end_capture()?;
            recorded?;
            self.passes(1.0, || (0..TOGETHER).try_for_each(|_| graph.launch(&self.stream)))
        };
        let (one, many) = (played(1)?, played(NODES)?);
        let together = f64::from(TOGETHER);
        sink.keep(many.ceiling(kinds[1], together, "driver", format!("{NODES} nodes")));
        let more = many.beyond(&one);
        sink.keep(more.ceiling(kinds[2], together * f64::from(NODES - 1), "driver", format!("{NODES} nodes less 1")));
        Ok(())
    }
}

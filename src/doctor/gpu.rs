//! The GPU itself: kernels made ready, each operation against the CPU device, whole steps of a model.

use std::sync::Arc;

use crate::clock::{Clock, Monotonic};
use crate::device::Ops;
use crate::device::cuda::CudaDevice;
use crate::device::cuda::gpu::{CudaSpec, Gpu};
use crate::device::cuda::matmul::MatmulChoice;
use crate::device::error::DeviceError;
use crate::device::source::Element;
use crate::doctor::cases::{Case, cases};
use crate::doctor::comparison::{Deviation, LIMITS, compare, specification};
use crate::doctor::{Examination, whole};
use crate::record::diagnosis::{Check, CheckResult};

const KERNELS: &str = "kernels";
const MODEL: &str = "model";
const ELEMENTS: [Element; 2] = [Element::F32, Element::Bf16];

/// A check to be done on the GPU.
#[derive(Clone, Copy)]
enum Todo {
    /// Kernels of this element type compile and load.
    Ready(Element),
    /// None of them spills.
    Spills(Element),
    /// An operation, by its cases' name, and whose products it computes with.
    Operation(Element, &'static str, MatmulChoice),
    /// A model of random weights, with recorded steps or without.
    Model { graphs: bool },
}

impl Todo {
    fn check(self) -> (&'static str, String) {
        match self {
            Self::Ready(element) => (KERNELS, format!("{} kernels", element.name())),
            Self::Spills(element) => (KERNELS, format!("{} registers", element.name())),
            Self::Operation(element, name, choice) => {
                let whose = if choice == MatmulChoice::Library { " by cuBLASLt" } else { "" };
                (KERNELS, format!("{} {name}{whose}", element.name()))
            }
            Self::Model { graphs } => (MODEL, format!("f32 steps, graphs {}", if graphs { "on" } else { "off" })),
        }
    }
}

/// Everything there is to do, in order.
fn todo(all: &[Case]) -> Vec<Todo> {
    let mut names: Vec<&'static str> = Vec::new();
    for name in all.iter().map(Case::name) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut todo = Vec::new();
    for element in ELEMENTS {
        todo.extend([Todo::Ready(element), Todo::Spills(element)]);
        for name in &names {
            todo.push(Todo::Operation(element, name, MatmulChoice::Own));
            if all.iter().any(|case| case.name() == *name && matches!(case, Case::Product { .. })) {
                todo.push(Todo::Operation(element, name, MatmulChoice::Library));
            }
        }
    }
    todo.extend([Todo::Model { graphs: false }, Todo::Model { graphs: true }]);
    todo
}

pub(super) fn examine(of: &Examination<'_>, keep: &mut dyn FnMut(Check)) {
    let all = cases(of.small);
    let mut bedside = Bedside { of, all: &all, ready: None, known: Vec::new(), broken: None };
    for todo in todo(&all) {
        let (section, name) = todo.check();
        let check = match &bedside.broken {
            _ if !of.has_gpu() => Check::waiting(section, name),
            Some(why) => Check::new(section, name, CheckResult::CouldNotRun, why.clone(), "See to that failure first"),
            None => bedside.check(todo, section, name),
        };
        keep(check);
    }
}

/// A GPU under examination.
struct Bedside<'a> {
    of: &'a Examination<'a>,
    all: &'a [Case],
    /// The GPU with kernels of an element type.
    ready: Option<(Element, Arc<Gpu>)>,
    /// Element types whose kernels became ready.
    known: Vec<Element>,
    /// What went so wrong that nothing more can be learned.
    broken: Option<String>,
}

impl Bedside<'_> {
    fn check(&mut self, todo: Todo, section: &str, name: String) -> Check {
        let done = match todo {
            Todo::Ready(element) => self.make_ready(element, section, &name),
            Todo::Spills(element) => self.spills(element, section, &name),
            Todo::Operation(element, operation, choice) => self.operation((element, operation, choice), section, &name),
            Todo::Model { graphs } => self.model(graphs, section, &name),
        };
        done.unwrap_or_else(|error| {
            if matches!(error, DeviceError::Cuda { .. }) && !matches!(todo, Todo::Ready(_)) {
                self.broken = Some(format!("`{name}` failed, and a failure in a kernel ends the GPU's context"));
            }
            failed(section, name, &error)
        })
    }

    fn gpu(&self, element: Element, matmul: MatmulChoice, graphs: bool) -> Result<Arc<Gpu>, DeviceError> {
        Gpu::open(self.of.libraries, &CudaSpec { element, matmul, graphs, ..self.of.spec.clone() })
    }

    fn make_ready(&mut self, element: Element, section: &str, name: &str) -> Result<Check, DeviceError> {
        self.ready = None;
        let clock = Monotonic::start();
        let gpu = self.gpu(element, MatmulChoice::Own, false)?;
        let architecture = gpu.identity().instructions.clone();
        let took = format!("for {architecture}, ready after {:.1} s", clock.now().as_secs_f64());
        self.ready = Some((element, gpu));
        self.known.push(element);
        let nvrtc = &self.of.libraries.nvrtc;
        Ok(match nvrtc {
            Err(_) => Check::new(
                section,
                name,
                CheckResult::Warning,
                format!("{took}, kept from an earlier run: there is no NVRTC"),
                "Install NVRTC: the next version of plimsoll brings other kernels",
            ),
            Ok(nvrtc) if architecture.starts_with("compute") => {
                let what = format!("{took}: NVRTC {} does not know this GPU, so that the driver compiles for it", nvrtc.version);
                Check::new(section, name, CheckResult::Warning, what, "Update NVRTC: kernels may be slower than they could be")
            }
            Ok(nvrtc) => Check::ok(section, name, format!("{took}, by NVRTC {}", nvrtc.version)),
        })
    }

    /// The GPU with kernels of `element`; why not otherwise.
    fn readied(&self, element: Element) -> Result<Arc<Gpu>, String> {
        let ready = self.ready.as_ref().filter(|(of, _)| *of == element);
        ready.map(|(_, gpu)| Arc::clone(gpu)).ok_or_else(|| format!("the {} kernels are not ready", element.name()))
    }

    fn spills(&self, element: Element, section: &str, name: &str) -> Result<Check, DeviceError> {
        let gpu = match self.readied(element) {
            Ok(gpu) => gpu,
            Err(why) => return Ok(could_not(section, name, why)),
        };
        let (count, spilled) = gpu.spills()?;
        if spilled.is_empty() {
            return Ok(Check::ok(section, name, format!("none of {count} kernels spills")));
        }
        let spilled: Vec<_> = spilled.iter().map(|(kernel, bytes)| format!("`{kernel}` {bytes} bytes a thread")).collect();
        let what = format!("of {count} kernels these spill registers to memory: {}", spilled.join(", "));
        Ok(Check::new(
            section,
            name,
            CheckResult::Warning,
            what,
            "They are slower than they should be: try another NVRTC, and please report it",
        ))
    }

    fn operation(
        &self,
        (element, operation, choice): (Element, &str, MatmulChoice),
        section: &str,
        name: &str,
    ) -> Result<Check, DeviceError> {
        let own = match self.readied(element) {
            Ok(gpu) => gpu,
            Err(why) => return Ok(could_not(section, name, why)),
        };
        let gpu = match (choice, &self.of.libraries.cublaslt) {
            (MatmulChoice::Library, Err(absence)) => {
                return Ok(Check::new(section, name, CheckResult::CouldNotRun, absence.reason.clone(), absence.remedy.clone()));
            }
            (MatmulChoice::Library, Ok(_)) => self.gpu(element, choice, false)?,
            _ => own,
        };
        let (mut worst, mut shapes): (Option<(Deviation, Case)>, _) = (None, 0);
        for case in self.all.iter().filter(|case| case.name() == operation) {
            let wanted = specification(case, element)?;
            let mut device = CudaDevice::open(&gpu)?;
            device.prepare(LIMITS)?;
            let deviation = compare(case, &mut device, element, &wanted)?;
            shapes += 1;
            if worst.is_none_or(|(worst, _)| deviation.most > worst.most || !deviation.agrees()) {
                worst = Some((deviation, *case));
            }
            if !deviation.agrees() {
                break;
            }
        }
        let Some((deviation, case)) = worst else { return Ok(could_not(section, name, "there is no case of it".to_owned())) };
        Ok(verdict(section, name, deviation, &format!("{shapes} shapes"), &format!("{case:?}")))
    }

    fn model(&self, graphs: bool, section: &str, name: &str) -> Result<Check, DeviceError> {
        if !self.known.contains(&Element::F32) {
            return Ok(could_not(section, name, "the f32 kernels are not ready".to_owned()));
        }
        let gpu = self.gpu(Element::F32, MatmulChoice::Best, graphs)?;
        match whole::compare(move || CudaDevice::open(&gpu)) {
            Ok(same) if same.equal => {
                let what = format!(
                    "{} tokens of {} sequences are the CPU device's; logits within {:.1e} of the largest",
                    same.tokens, same.sequences, same.most
                );
                Ok(Check::ok(section, name, what))
            }
            Ok(other) => {
                let what =
                    format!("tokens differ from the CPU device's; logits lie {:.1e} of the largest apart before they do", other.most);
                Ok(Check::new(
                    section,
                    name,
                    CheckResult::Failed,
                    what,
                    "Trust no token of this GPU. Update the driver and NVRTC, run it again, and please report it",
                ))
            }
            Err(error) => Ok(Check::new(section, name, CheckResult::Failed, error.to_string(), "See the message; then run it again")),
        }
    }
}

fn verdict(section: &str, name: &str, deviation: Deviation, shapes: &str, worst: &str) -> Check {
    let Deviation { most, allowed } = deviation;
    if deviation.agrees() {
        let what = if allowed == 0.0 {
            format!("exactly the CPU device's, {shapes}")
        } else {
            format!("largest deviation {most:.1e}, {allowed:.1e} allowed, {shapes}")
        };
        return Check::ok(section, name, what);
    }
    let what = format!("deviates from the CPU device by {most:.1e} of the largest number where {allowed:.1e} is allowed, at {worst}");
    Check::new(
        section,
        name,
        CheckResult::Failed,
        what,
        "Trust no result of this GPU. Update the driver and NVRTC, run it again, and please report it",
    )
}

fn could_not(section: &str, name: &str, why: String) -> Check {
    Check::new(section, name, CheckResult::CouldNotRun, why, "See to that failure first")
}

/// A device's own error: its text says what to do.
fn failed(section: &str, name: String, error: &DeviceError) -> Check {
    Check::new(section, name, CheckResult::Failed, error.to_string(), "Do what the message says, then run it again")
}

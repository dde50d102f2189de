//! What a kernel takes of the hardware, from the assembler's log and the intermediate code.

/// One kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) kernel: String,
    pub(super) registers: u32,
    pub(super) shared: u32,
    pub(super) stack: u32,
    pub(super) spill_stores: u32,
    pub(super) spill_loads: u32,
    /// The largest block it is compiled for.
    pub(super) threads: u32,
    /// So many of which a multiprocessor must be able to hold.
    pub(super) blocks: u32,
}

impl Usage {
    /// Whether any of it lives in memory that should live in registers.
    pub(super) fn spilled(&self) -> bool {
        self.stack + self.spill_stores + self.spill_loads > 0
    }
}

/// The number right before `unit`.
fn before(line: &str, unit: &str) -> Option<u32> {
    line[..line.find(unit)?].split_whitespace().last()?.parse().ok()
}

/// The first number after `name` within the entry of `kernel`.
fn directive(ptx: &str, kernel: &str, name: &str) -> Option<u32> {
    let entry = &ptx[ptx.find(&format!(".entry {kernel}("))?..];
    let head = &entry[..entry.find('{')?];
    head[head.find(name)? + name.len()..].split([',', '\n', ' ']).find(|word| !word.is_empty())?.parse().ok()
}

/// Every kernel that `log` reports.
pub(super) fn of(log: &str, ptx: &str) -> Result<Vec<Usage>, String> {
    let mut found: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            let threads = directive(ptx, &kernel, ".maxntid").ok_or_else(|| format!("`{kernel}` has no bound on its block"))?;
            let blocks = directive(ptx, &kernel, ".minnctapersm").unwrap_or(1);
            found.push(Usage { kernel, threads, blocks, ..Usage::default() });
        } else if let Some(last) = found.last_mut() {
            let stack =
                || Some((before(line, " bytes stack frame")?, before(line, " bytes spill stores")?, before(line, " bytes spill loads")?));
            if let Some(numbers) = stack() {
                (last.stack, last.spill_stores, last.spill_loads) = numbers;
            } else if let Some(registers) = before(line, " registers") {
                (last.registers, last.shared) = (registers, before(line, " bytes smem").unwrap_or(0));
            }
        }
    }
    match found.iter().find(|usage| usage.registers == 0) {
        Some(unread) => Err(format!("the log does not say what `{}` takes:\n{log}", unread.kernel)),
        None if found.is_empty() => Err(format!("the log names no kernel:\n{log}")),
        None => Ok(found),
    }
}

//! What a fault that the driver reports (an XID) means for a run.
//!
//! Numbers and meanings are NVIDIA's (XID catalogue); what to do follows the severity that gpud gives them. A number that
//! is not in the table spoils the window it falls into: it is better to measure again than to explain later.

/// What becomes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// It goes on; the fault is told.
    Annotate,
    /// The level is invalid.
    Invalid,
    /// It ends at once; what was measured is kept.
    EndRun,
    /// It ends at once where it uses several GPUs; otherwise the fault is told.
    EndRunOfSeveral,
}

/// Number, meaning, consequence.
const TABLE: &[(u64, &str, Consequence)] = &[
    (13, "graphics engine exception, mostly of the program", Consequence::Invalid),
    (31, "GPU memory page fault, mostly of the program", Consequence::Invalid),
    (43, "GPU stopped processing for a program", Consequence::Invalid),
    (45, "preemptive clean-up after another fault", Consequence::Invalid),
    (48, "double-bit ECC error", Consequence::EndRun),
    (61, "micro-controller breakpoint", Consequence::EndRun),
    (62, "micro-controller halt", Consequence::EndRun),
    (63, "row remapping recorded", Consequence::EndRun),
    (64, "row remapping failed", Consequence::EndRun),
    (69, "graphics engine class error", Consequence::EndRun),
    (74, "NVLink error", Consequence::EndRunOfSeveral),
    (79, "GPU has fallen off the bus", Consequence::EndRun),
    (92, "high rate of single-bit ECC errors", Consequence::Annotate),
    (94, "contained ECC error", Consequence::EndRun),
    (95, "uncontained ECC error", Consequence::EndRun),
    (109, "context switch timeout", Consequence::Invalid),
    (119, "GSP does not answer", Consequence::EndRun),
    (120, "GSP error", Consequence::EndRun),
    (121, "chip-to-chip link error", Consequence::EndRunOfSeveral),
    (122, "SPI read failure", Consequence::Invalid),
    (123, "power management unit failure", Consequence::Invalid),
    (140, "unrecovered ECC error", Consequence::EndRun),
    (149, "NVLink netlist error", Consequence::EndRunOfSeveral),
];

/// What a fault stands for.
#[must_use]
pub fn meaning(code: u64) -> &'static str {
    entry(code).map_or("see NVIDIA's XID catalogue", |(_, meaning, _)| meaning)
}

/// What becomes of a run on so many GPUs: never [`Consequence::EndRunOfSeveral`].
#[must_use]
pub fn consequence(code: u64, gpus: usize) -> Consequence {
    match entry(code).map_or(Consequence::Invalid, |(_, _, consequence)| *consequence) {
        Consequence::EndRunOfSeveral if gpus > 1 => Consequence::EndRun,
        Consequence::EndRunOfSeveral => Consequence::Annotate,
        other => other,
    }
}

fn entry(code: u64) -> Option<&'static (u64, &'static str, Consequence)> {
    TABLE.iter().find(|(known, ..)| *known == code)
}

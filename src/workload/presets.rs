//! The workloads that come with the program, and fixed lengths by name.

use crate::workload::lengths::Distribution;
use crate::workload::spec::{Workload, WorkloadError};

/// Name and file of each, in the order in which they are listed.
const PRESETS: [(&str, &str); 9] = [
    ("chat", include_str!("../../benchmarks/workloads/chat.toml")),
    ("code", include_str!("../../benchmarks/workloads/code.toml")),
    ("rag", include_str!("../../benchmarks/workloads/rag.toml")),
    ("summarize", include_str!("../../benchmarks/workloads/summarize.toml")),
    ("agentic", include_str!("../../benchmarks/workloads/agentic.toml")),
    ("quick", include_str!("../../benchmarks/workloads/quick.toml")),
    ("fixed-128-128", include_str!("../../benchmarks/workloads/fixed-128-128.toml")),
    ("fixed-1024-128", include_str!("../../benchmarks/workloads/fixed-1024-128.toml")),
    ("fixed-128-1024", include_str!("../../benchmarks/workloads/fixed-128-1024.toml")),
];

impl Workload {
    /// Names of the workloads that come with the program.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// The workload called `name`: a preset, or `fixed:IN:OUT`.
    pub fn preset(name: &str) -> Result<Self, WorkloadError> {
        if let Some((_, toml)) = PRESETS.iter().find(|(known, _)| *known == name) {
            return Self::parse(toml, &format!("{name}.toml"));
        }
        let lengths = name.strip_prefix("fixed:").and_then(|lengths| lengths.split_once(':'));
        match lengths.map(|(input, output)| (input.parse(), output.parse())) {
            Some((Ok(input), Ok(output))) => Self::fixed(input, output),
            _ => {
                let known: Vec<_> = Self::preset_names().map(|name| format!("`{name}`")).collect();
                Err(WorkloadError::Unknown { name: name.to_owned(), known: known.join(", ") })
            }
        }
    }

    /// Unique prompts of `input` tokens, answers of `output` tokens, each 1 or more; Poisson arrivals, greedy.
    pub fn fixed(input: u32, output: u32) -> Result<Self, WorkloadError> {
        let workload = Self {
            name: format!("fixed-{input}-{output}"),
            description: format!("Unique prompts of {input} tokens, answers of {output} tokens."),
            citation: "fixed lengths, as asked".to_owned(),
            scale: 1.0,
            slo: None,
            input: Distribution::Fixed(input),
            output: Distribution::Fixed(output),
            arrivals: Default::default(),
            sampling: Default::default(),
            caps: Default::default(),
            shared_prefix: None,
            sessions: None,
        };
        workload.check().map(|()| workload)
    }
}

//! `plimsoll generate`: tokens from a model, to see that the engine computes what the model's authors meant.
//!
//! It measures nothing.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ArgGroup;
use serde::Serialize;

use crate::cli::device::{Device, DeviceArgs};
use crate::cli::engine_args::EngineArgs;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::loading;
use crate::cli::terminal::{Format, Progress, Terminal};
use crate::engine::limits::RequestLimits;
use crate::engine::loading::{LoadedModel, ShapeWish};
use crate::engine::sequence::{EndOfSequence, EngineRequest};
use crate::engine::{Engine, EngineEvent};
use crate::model::tokenizer::{SpecialTokens, Tokenizer};
use crate::node;
use crate::record::SCHEMA_VERSION;
use crate::workload::request::Sampling;

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("what").required(true).args(["prompt", "prompt_ids", "prompts_file"]),
    after_help = "Examples:\n  plimsoll generate --model llama-5m --prompt-ids 1,2,3\n  \
                  plimsoll generate --model ./checkpoint --prompt 'The old ship' --max-new-tokens 48 --format json"
)]
pub struct GenerateArgs {
    /// Folder of a Hugging Face checkpoint, or a preset's name for random weights
    #[arg(long, value_name = "DIR|PRESET")]
    model: String,
    /// Text to go on from, by the checkpoint's tokenizer
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Token ids to go on from, such as 1,2,3
    #[arg(long, value_name = "IDS")]
    prompt_ids: Option<String>,
    /// JSON file with a list of lists of token ids, run as one batch
    #[arg(long, value_name = "FILE")]
    prompts_file: Option<PathBuf>,
    /// Tokens to generate for each prompt
    #[arg(long, value_name = "N", default_value_t = 32)]
    max_new_tokens: u32,
    /// Neither stop at an end id nor forbid it
    #[arg(long)]
    ignore_eos: bool,
    /// Also print the logits of the prompt's last position
    #[arg(long)]
    logits: bool,
    /// Divide logits by this; 0 is greedy
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true, help_heading = "Sampling")]
    temperature: f32,
    /// Choose among the k likeliest ids; 0 is all
    #[arg(long, value_name = "K", default_value_t = 0, help_heading = "Sampling")]
    top_k: u32,
    /// Choose among the likeliest ids that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true, help_heading = "Sampling")]
    top_p: f32,
    /// Of the sampling, and of a preset's random weights
    #[arg(long, value_name = "SEED", default_value_t = 0, help_heading = "Sampling")]
    seed: u64,
    /// Threads that compute [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Device")]
    threads: Option<u16>,
    /// KV blocks [default: what all prompts need at once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Device")]
    kv_blocks: Option<u32>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What came of one prompt.
#[derive(Debug, Default, Serialize)]
struct Output {
    token_ids: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
}

#[derive(Serialize)]
struct GenerateDocument<'a> {
    schema_version: u32,
    model: &'a str,
    device: &'a str,
    precision: String,
    labels: Vec<String>,
    #[serde(flatten)]
    outputs: Outputs,
}

/// One prompt has its output in the document itself, a file of prompts a list of them.
#[derive(Serialize)]
#[serde(untagged)]
enum Outputs {
    One(Output),
    Batch { outputs: Vec<Output> },
}

/// Generates.
///
/// # Errors
/// When the model, the prompts or the device are not in order.
pub fn run(args: &GenerateArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json])?;
    let source = args.engine.open(&args.model, args.seed)?;
    let tokenizer = args.tokenizer(source.config.vocab_size)?;
    let prompts = args.prompts(tokenizer.as_ref())?;
    let device = args.choose_device()?;
    let wish = args.wish(&prompts, args.max_new_tokens, device.is_cpu());
    let requests = args.requests(prompts);
    // Before the weights are made, which may take minutes.
    let limits = RequestLimits {
        vocab_size: source.config.vocab_size,
        context: source.config.max_position_embeddings,
        shape: wish.with_blocks(wish.num_kv_blocks.unwrap_or(u32::MAX)),
    };
    for request in &requests {
        limits.check(request).with_context(|| refused(request.key))?;
    }
    let model = args.load(device, &wish, out.progress())?;
    let mut engine = model.engine().context("cannot make an engine")?;
    let mut outputs = generate(&mut engine, requests, args.logits)?;
    if let Some(tokenizer) = &tokenizer {
        for output in &mut outputs {
            match tokenizer.decode(&output.token_ids, SpecialTokens::Keep) {
                Ok(text) => output.text = Some(text),
                Err(problem) => tracing::warn!("the text is left out: {problem}"),
            }
        }
    }
    if format == Format::Text {
        out.print(text_of(&outputs, &model))?;
        return Ok(Exit::Good);
    }
    let outputs = match outputs.pop() {
        Some(only) if args.prompts_file.is_none() => Outputs::One(only),
        last => Outputs::Batch { outputs: outputs.into_iter().chain(last).collect() },
    };
    out.document(&GenerateDocument {
        schema_version: SCHEMA_VERSION,
        model: &model.name,
        device: &model.device.name,
        precision: model.precision(),
        labels: model.labels(),
        outputs,
    })?;
    Ok(Exit::Good)
}

/// What is said of a prompt that cannot be served.
fn refused(number: u64) -> String {
    format!("prompt number {number} is refused")
}

impl GenerateArgs {
    /// The checkpoint's tokenizer. Where the prompt is given as ids it only makes the answer readable.
    fn tokenizer(&self, vocab_size: usize) -> anyhow::Result<Option<Tokenizer>> {
        match Tokenizer::open(Path::new(&self.model), vocab_size) {
            Err(problem) if self.prompt.is_none() => {
                tracing::warn!("the text is left out: {problem}");
                Ok(None)
            }
            opened => Ok(opened?),
        }
    }

    /// The ids of each prompt.
    fn prompts(&self, tokenizer: Option<&Tokenizer>) -> anyhow::Result<Vec<Vec<u32>>> {
        if let Some(text) = &self.prompt {
            let missing = || anyhow::anyhow!("`{}` has no tokenizer.json to encode `--prompt` with. Give `--prompt-ids`", self.model);
            let tokenizer = tokenizer.with_context(missing).exit_with(Exit::BadInput)?;
            return Ok(vec![tokenizer.encode(text, SpecialTokens::Keep).exit_with(Exit::BadInput)?]);
        }
        if let Some(file) = &self.prompts_file {
            return prompts_of(file).exit_with(Exit::BadInput);
        }
        let ids = self.prompt_ids.as_deref().unwrap_or_default();
        let id = |id: &str| id.parse().with_context(|| format!("`{id}` in `--prompt-ids` is no token id. Give numbers such as 1,2,3"));
        // No ids at all are an empty prompt, which is refused as such.
        let ids = ids.split(',').map(str::trim).filter(|id| !ids.trim().is_empty() || !id.is_empty());
        Ok(vec![ids.map(id).collect::<Result<_, _>>().exit_with(Exit::Usage)?])
    }

    fn requests(&self, prompts: Vec<Vec<u32>>) -> Vec<EngineRequest> {
        let sampling = Sampling { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p, seed: self.seed };
        let end_of_sequence = if self.ignore_eos { EndOfSequence::Ignore } else { EndOfSequence::Stop };
        let max_new_tokens = self.max_new_tokens;
        let request = |(key, prompt)| EngineRequest { key, prompt, max_new_tokens, sampling, end_of_sequence };
        (0..).zip(prompts).map(request).collect()
    }

    /// The one device that computes.
    fn choose_device(&self) -> anyhow::Result<Device> {
        let asked = self.threads.and_then(|threads| NonZeroUsize::new(usize::from(threads)));
        let threads = asked.or_else(|| NonZeroUsize::new(node::busy_cores() as usize)).unwrap_or(NonZeroUsize::MIN);
        self.device.choose(self.engine.arithmetic, threads)?.only()
    }

    fn load(&self, device: Device, wish: &ShapeWish, progress: Progress) -> anyhow::Result<LoadedModel> {
        let open = || self.engine.open(&self.model, self.seed);
        let loaded = device.load(self.device.libraries(), open, wish, &mut loading::shown(progress)).context("cannot load the model")?;
        Ok(loaded.into_iter().next().expect("a device holds a model"))
    }

    /// The engine's shape, with blocks for all prompts and answers at once, unless their number is given.
    fn wish(&self, prompts: &[Vec<u32>], max_new_tokens: u32, on_cpu: bool) -> ShapeWish {
        let wish = self.engine.wish(on_cpu);
        let blocks = |prompt: &Vec<u32>| prompt.len().saturating_add(max_new_tokens as usize).div_ceil(wish.block_size);
        let needed = prompts.iter().map(blocks).fold(1, usize::saturating_add);
        ShapeWish {
            num_kv_blocks: Some(self.kv_blocks.unwrap_or(u32::try_from(needed).unwrap_or(u32::MAX))),
            max_num_seqs: wish.max_num_seqs.min(prompts.len().max(1)),
            ..wish
        }
    }
}

/// Reads a JSON list of lists of ids.
fn prompts_of(file: &Path) -> anyhow::Result<Vec<Vec<u32>>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the prompts `{}`", file.display()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let wanted = || format!("`{}` is no JSON list of lists of token ids. Write it as [[1,2,3],[4,5]]", file.display());
    let prompts: Vec<Vec<u32>> = serde_json::from_str(text).with_context(wanted)?;
    anyhow::ensure!(!prompts.is_empty(), "`{}` has no prompts. Write it as [[1,2,3],[4,5]]", file.display());
    Ok(prompts)
}

/// Serves all requests as one batch.
fn generate(engine: &mut Engine, requests: Vec<EngineRequest>, with_logits: bool) -> anyhow::Result<Vec<Output>> {
    let mut outputs: Vec<Output> = requests.iter().map(|_| Output::default()).collect();
    for request in requests {
        let number = request.key;
        engine.add(request).with_context(|| refused(number))?;
    }
    let mut chosen = Vec::new();
    while !engine.is_idle() {
        engine
            .step(&mut |event| {
                if let EngineEvent::Token { key, token } = event {
                    chosen.push((key, token));
                }
            })
            .context("the device failed")?;
        for (key, token) in chosen.drain(..) {
            let output = &mut outputs[usize::try_from(key)?];
            output.token_ids.push(token);
            if with_logits && output.logits.is_none() {
                output.logits = engine.last_logits(key)?;
            }
        }
    }
    Ok(outputs)
}

fn text_of(outputs: &[Output], model: &LoadedModel) -> String {
    let mut text = String::new();
    for output in outputs {
        let ids = output.token_ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        text += output.text.as_deref().unwrap_or(&ids);
        text.push('\n');
        if let Some(logits) = &output.logits {
            text += &logits.iter().map(f32::to_string).collect::<Vec<_>>().join(" ");
            text.push('\n');
        }
    }
    text + &format!("({}, {}, {}; {})\n", model.name, model.device.name, model.precision(), model.labels().join("; "))
}

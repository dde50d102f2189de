//! An examination of the machine as text: a line a check, cause and next step below those that did not come out well.

use crate::record::diagnosis::{Check, CheckResult, Diagnosis};
use crate::report::Look;
use crate::report::paint::Tone;
use crate::report::prose::{title, wrap};

/// Columns of a result and of a name.
const RESULT: usize = 13;
const NAME: usize = 34;

/// For the terminal.
#[must_use]
pub fn text(diagnosis: &Diagnosis, look: Look) -> String {
    let mut text = String::new();
    let mut section = "";
    for check in &diagnosis.checks {
        if check.section != section {
            section = &check.section;
            text.push_str(&title(section, "", look));
        }
        text.push_str(&line(check, look));
    }
    text + "\n" + &summary(diagnosis)
}

/// One check.
#[must_use]
pub fn line(check: &Check, look: Look) -> String {
    let tone = match check.result {
        CheckResult::Ok => Tone::Good,
        CheckResult::Warning => Tone::Doubtful,
        CheckResult::Failed => Tone::Bad,
        CheckResult::CouldNotRun => Tone::Faint,
    };
    let result = look.paint.apply(tone, format!("{:<RESULT$}", check.result.label()));
    let margin = 2 + RESULT + 2;
    if check.waits_for_gpu {
        return format!("  {result}  {:<NAME$}  {}\n", check.name, check.evidence);
    }
    let mut text = String::new();
    let width = usize::from(look.width).saturating_sub(margin).max(30);
    let first = format!("{:<NAME$}  {}", check.name, check.evidence);
    let lines =
        if first.chars().count() <= width { vec![first] } else { [vec![check.name.clone()], wrap(&check.evidence, width - 2)].concat() };
    for (index, line) in lines.iter().enumerate() {
        let begin = if index == 0 { format!("  {result}  ") } else { " ".repeat(margin + 2) };
        text.push_str(&format!("{begin}{line}\n"));
    }
    for (index, line) in wrap(&check.next_step, width - 4).iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        text.push_str(&format!("{}{} {line}\n", " ".repeat(margin + 2), if index == 0 { '→' } else { ' ' }));
    }
    text
}

/// How many came out how.
#[must_use]
pub fn summary(diagnosis: &Diagnosis) -> String {
    let count = |result| diagnosis.count(result);
    let waiting = match diagnosis.waiting() {
        0 => String::new(),
        waiting => format!(", {waiting} of them because there is no GPU"),
    };
    format!(
        "{} checks: {} ok, {} warnings, {} failed, {} could not run{waiting}\n",
        diagnosis.checks.len(),
        count(CheckResult::Ok),
        count(CheckResult::Warning),
        count(CheckResult::Failed),
        count(CheckResult::CouldNotRun),
    )
}

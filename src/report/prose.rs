//! Lines of text: wrapping, hanging indents, `label  value` lists, a box.

use crate::report::Look;
use crate::report::paint::Tone;

/// Breaks text at spaces into lines of at most `width` characters; a longer word keeps a line of its own.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("it starts with one line");
        if line.is_empty() {
            line.push_str(word);
        } else if length(line) + 1 + length(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Characters as a terminal shows them; all that reports print is one column wide.
pub(super) fn length(text: &str) -> usize {
    text.chars().count()
}

/// `  label  value`, the value wrapped under itself.
pub(super) fn labelled(label: &str, value: &str, look: Look) -> String {
    const LABEL: usize = 10;
    let mut text = String::new();
    for (index, line) in wrap(value, usize::from(look.width).saturating_sub(LABEL + 4).max(20)).iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        text.push_str(&format!("  {}  {line}\n", look.paint.apply(Tone::Faint, format!("{label:<LABEL$}"))));
    }
    text
}

/// `Title  remark`, with an empty line before.
pub(super) fn title(title: &str, remark: &str, look: Look) -> String {
    let head = format!("\n{}", look.paint.apply(Tone::Strong, title));
    if remark.is_empty() { head + "\n\n" } else { format!("{head}  {}\n\n", look.paint.apply(Tone::Faint, remark)) }
}

/// Indented prose.
pub(super) fn paragraph(text: &str, tone: Tone, look: Look) -> String {
    let lines = wrap(text, usize::from(look.width).saturating_sub(2).max(20));
    lines.iter().map(|line| format!("  {}\n", look.paint.apply(tone, line))).collect()
}

/// Lines in a box as wide as the page; each line is wrapped and keeps its tone.
pub(super) fn boxed(lines: &[(Tone, String)], look: Look) -> String {
    let inner = usize::from(look.width).clamp(40, 100) - 4;
    let rule = "─".repeat(inner + 2);
    let mut text = format!("╭{rule}╮\n");
    for (tone, line) in lines {
        for piece in wrap(line, inner) {
            let padding = " ".repeat(inner.saturating_sub(length(&piece)));
            text.push_str(&format!("│ {}{padding} │\n", look.paint.apply(*tone, &piece)));
        }
    }
    text + &format!("╰{rule}╯\n")
}

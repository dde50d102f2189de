//! A grid of cells that knows nothing of its form: the same rows become a console table or a markdown table.

use crate::report::Look;
use crate::report::paint::Tone;
use crate::report::prose::length;

/// A column: what it shows, and in which unit (may be empty).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    label: String,
    unit: String,
    /// The same over two narrow lines.
    lines: [String; 2],
    side: Side,
}

/// Numbers stand right, words left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// One value as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

/// Heads and rows, all of one length.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grid {
    heads: Vec<Head>,
    rows: Vec<Vec<Cell>>,
}

impl Head {
    pub(super) fn words(label: &str) -> Self {
        Self { label: label.to_owned(), unit: String::new(), lines: [label.to_owned(), String::new()], side: Side::Left }
    }

    pub(super) fn number(label: &str, unit: &str) -> Self {
        // `TTFT p99` in ms is `TTFT` over `p99 ms`.
        let lines = match label.rsplit_once(' ') {
            Some((first, rest)) if rest.starts_with("p9") || rest.starts_with("p5") => [first.to_owned(), format!("{rest} {unit}")],
            _ => [label.to_owned(), unit.to_owned()],
        };
        Self { label: label.to_owned(), unit: unit.to_owned(), lines, side: Side::Right }
    }
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Usual }
    }

    pub(super) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

impl Grid {
    pub(super) fn of(heads: Vec<Head>) -> Self {
        Self { heads, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.heads.len(), "a cell for each column");
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Indented by two, heads over units over a rule. As wide as its numbers need.
    pub(super) fn to_text(&self, look: Look) -> String {
        let widths = (0..self.heads.len()).map(|column| self.width(column)).collect::<Vec<_>>();
        let line = |cells: Vec<(&str, Tone)>| {
            let mut text = String::new();
            for (column, (cell, tone)) in cells.into_iter().enumerate() {
                let padding = " ".repeat(widths[column] - length(cell));
                let cell = if cell.is_empty() { String::new() } else { look.paint.apply(tone, cell) };
                text.push_str("  ");
                text.push_str(&if self.heads[column].side == Side::Left { cell + &padding } else { padding + &cell });
            }
            text.trim_end().to_owned() + "\n"
        };
        let mut text = line(self.heads.iter().map(|head| (head.lines[0].as_str(), Tone::Strong)).collect());
        if self.heads.iter().any(|head| !head.lines[1].is_empty()) {
            text.push_str(&line(self.heads.iter().map(|head| (head.lines[1].as_str(), Tone::Faint)).collect()));
        }
        let rule = "─".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1));
        text.push_str(&format!("  {}\n", look.paint.apply(Tone::Faint, rule)));
        for row in &self.rows {
            text.push_str(&line(row.iter().map(|cell| (cell.text.as_str(), cell.tone)).collect()));
        }
        text
    }

    /// As a markdown table, units in brackets.
    pub(super) fn to_markdown(&self) -> String {
        let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let heads = self.heads.iter().map(|head| match head.unit.as_str() {
            "" => escaped(&head.label),
            unit => format!("{} ({})", escaped(&head.label), escaped(unit)),
        });
        let sides = self.heads.iter().map(|head| if head.side == Side::Left { ":---" } else { "---:" }.to_owned());
        let mut text = row(heads.collect()) + &row(sides.collect());
        for cells in &self.rows {
            text.push_str(&row(cells.iter().map(|cell| escaped(&cell.text)).collect()));
        }
        text
    }

    fn width(&self, column: usize) -> usize {
        let head = &self.heads[column];
        let cells = self.rows.iter().map(|row| length(&row[column].text));
        cells.chain(head.lines.iter().map(|line| length(line))).max().unwrap_or(0)
    }
}

/// What would end a cell or begin markup.
pub(super) fn escaped(text: &str) -> String {
    text.trim().replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

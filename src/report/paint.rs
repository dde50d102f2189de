//! Colour, as a choice handed in: a few tones with a meaning each. Meaning is never in colour alone.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// No escape sequences.
    Plain,
    /// With escape sequences; the terminal's stream drops them where they are not wanted.
    Colour,
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Anything.
    Usual,
    /// What the eye shall find first.
    Strong,
    /// What it may skip.
    Faint,
    /// In order.
    Good,
    /// To be doubted.
    Doubtful,
    /// Not to be used.
    Bad,
}

impl Tone {
    pub(super) fn style(self) -> Style {
        match self {
            Self::Usual => Style::new(),
            Self::Strong => Style::new().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

impl Paint {
    /// `text` in that tone.
    pub(super) fn apply(self, tone: Tone, text: impl Display) -> String {
        if self == Self::Plain || tone == Tone::Usual {
            return text.to_string();
        }
        let style = tone.style();
        format!("{style}{text}{style:#}")
    }
}

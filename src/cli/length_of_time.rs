//! Lengths of time on the command line.

use std::time::Duration;

/// Reads `90`, `90s`, `20m`, `1.5h`, `500ms`.
pub(super) fn read(text: &str) -> Result<Duration, String> {
    let at = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit_s = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is no unit of time; use ms, s, m or h")),
    };
    let seconds = number.trim().parse::<f64>().map_err(|_| format!("`{text}` is no length of time; write it as `90s` or `20m`"))? * unit_s;
    if !(seconds > 0.0 && seconds < 1e7) {
        return Err(format!("`{text}` is not between 0 and 115 days"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

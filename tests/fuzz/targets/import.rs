//! Results of other tools: what is read has figures that can be, and everything else is an error in words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll::interchange::import::{Format, read};
use plimsoll::record::imported::Load;

fuzz_target!(|bytes: &[u8]| {
    // By what it shows, and by one that it is perhaps not.
    let named = [Format::Vllm, Format::Aiperf, Format::Guidellm, Format::Inferencex][bytes.len() % 4];
    for format in [None, Some(named)] {
        let imported = match read("file.json", bytes, format) {
            Ok(imported) => imported,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        assert!(!imported.points.is_empty(), "a file without a point is an error");
        for point in &imported.points {
            let mut figures = vec![point.calls_per_s];
            figures.extend(match point.load {
                Load::Open { calls_per_s } => Some(calls_per_s),
                _ => None,
            });
            figures.extend([point.output_tokens_per_s, point.mean_input_tokens, point.mean_output_tokens].into_iter().flatten());
            for quantiles in [&point.ttft_ms, &point.tpot_ms, &point.itl_ms, &point.e2e_ms] {
                figures.extend(quantiles.mean);
                figures.extend(quantiles.at.iter().map(|(_, value)| *value));
                assert!(quantiles.at.is_sorted_by(|one, other| one.0 < other.0), "percentiles rise: {quantiles:?}");
            }
            assert!(figures.iter().all(|figure| figure.is_finite() && *figure >= 0.0), "each figure can be: {point:?}");
        }
    }
});

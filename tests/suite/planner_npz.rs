//! NumPy archives read back byte by byte, by a reader that knows ZIP and NPY and nothing of how they were written.

use plimsoll::interchange::planner::form::Form;
use plimsoll::interchange::planner::npz::{Array, archive};
use proptest::prelude::*;

use crate::support::planner_run::{files, find, json, run};

/// An array as it was found: name, type, shape, values.
type Found = (String, String, Vec<usize>, Vec<f64>);

fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// CRC-32 of ZIP, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

fn read(zip: &[u8]) -> Vec<Found> {
    let end = zip.len() - 22;
    assert_eq!(&zip[end..end + 4], b"PK\x05\x06");
    let (count, length, mut at) = (number(zip, end + 10, 2), number(zip, end + 12, 4), number(zip, end + 16, 4));
    assert_eq!(at + length, end, "the directory ends where the end begins");
    let mut found = Vec::new();
    for _ in 0..count {
        assert_eq!((&zip[at..at + 4], number(zip, at + 10, 2)), (&b"PK\x01\x02"[..], 0), "a stored entry");
        let (sum, size, named, local) =
            (number(zip, at + 16, 4), number(zip, at + 20, 4), number(zip, at + 28, 2), number(zip, at + 42, 4));
        assert_eq!(number(zip, at + 24, 4), size, "stored is as long as it is");
        let name = String::from_utf8(zip[at + 46..at + 46 + named].to_vec()).unwrap();
        assert_eq!((&zip[local..local + 4], number(zip, local + 14, 4)), (&b"PK\x03\x04"[..], sum), "both headers say the same");
        let start = local + 30 + number(zip, local + 26, 2) + number(zip, local + 28, 2);
        assert_eq!(&zip[local + 30..local + 30 + named], name.as_bytes());
        let content = &zip[start..start + size];
        assert_eq!(checksum(content) as usize, sum);
        found.push(array(name.strip_suffix(".npy").unwrap(), content));
        at += 46 + named + number(zip, at + 30, 2) + number(zip, at + 32, 2);
    }
    found
}

fn array(name: &str, npy: &[u8]) -> Found {
    assert_eq!(&npy[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + number(npy, 8, 2);
    assert_eq!((start % 64, npy[start - 1]), (0, b'\n'));
    let header = String::from_utf8(npy[10..start].to_vec()).unwrap();
    let between = |from: &str, to: &str| header.split(from).nth(1).unwrap().split(to).next().unwrap().to_owned();
    assert_eq!(between("'fortran_order': ", ","), "False");
    let kind = between("'descr': '", "'");
    let sizes = between("'shape': (", ")");
    let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
    let shape: Vec<usize> = sizes.map(|size| size.parse().unwrap()).collect();
    let values = npy[start..].chunks_exact(8).map(|eight| {
        let eight: [u8; 8] = eight.try_into().unwrap();
        if kind == "<i8" { i64::from_le_bytes(eight) as f64 } else { f64::from_le_bytes(eight) }
    });
    let values: Vec<f64> = values.collect();
    assert_eq!((values.len(), (npy.len() - start) % 8), (shape.iter().product::<usize>(), 0));
    (name.to_owned(), kind, shape, values)
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(
        integers in proptest::collection::vec(-1_000_000_i64..1_000_000, 0..50),
        floats in proptest::collection::vec(-1e9..1e9_f64, 1..50),
        columns in 1_usize..9,
    ) {
        let grid: Vec<f64> = floats.iter().copied().cycle().take(columns * 3).collect();
        let zip = archive(&[
            ("whole", Array::Integers(integers.clone())),
            ("a_rather_long_name_of_an_array", Array::Floats(floats.clone())),
            ("grid", Array::Grid(columns, grid.clone())),
        ]);
        let found = read(&zip);
        let wanted = [
            ("whole", "<i8", vec![integers.len()], integers.iter().map(|value| *value as f64).collect()),
            ("a_rather_long_name_of_an_array", "<f8", vec![floats.len()], floats),
            ("grid", "<f8", vec![3, columns], grid),
        ];
        prop_assert_eq!(found, wanted.map(|(name, kind, shape, values)| (name.to_owned(), kind.to_owned(), shape, values)).to_vec());
    }
}

#[test]
fn a_profile_says_the_same_in_both_forms_and_the_capacity_is_an_array_of_one() {
    let files = files(&run(), Form::Dynamo);
    for part in ["prefill", "decode"] {
        let plain = json(&files, &format!("{part}_raw_data.json"));
        let arrays = read(&find(&files, &format!("selected_{part}_interpolation/raw_data.npz")).bytes);
        assert_eq!(arrays.len(), plain.as_object().unwrap().len());
        for (name, kind, shape, values) in arrays {
            let is_whole = ["prefill_isl", "max_kv_tokens"].contains(&name.as_str());
            assert_eq!((kind.as_str(), shape.len()), (if is_whole { "<i8" } else { "<f8" }, 1));
            let wanted = match &plain[&name] {
                serde_json::Value::Array(values) => values.iter().map(|value| value.as_f64().unwrap()).collect(),
                one => vec![one.as_f64().unwrap()],
            };
            assert_eq!(values, wanted, "{name}");
        }
    }
}

#[test]
fn the_mockers_table_rises_with_tokens_and_stays_inside_what_was_measured() {
    let table = read(&find(&files(&run(), Form::Dynamo), "perf_data.npz").bytes);
    let of = |name: &str| table.iter().find(|array| array.0 == name).unwrap();
    let (kv, context, (_, _, shape, itl)) = (&of("decode_active_kv_tokens").3, &of("decode_context_length").3, of("decode_itl"));
    assert_eq!(*shape, [kv.len(), context.len()]);
    assert_eq!((context.first(), context.last()), (Some(&160.0), Some(&992.0)));
    assert_eq!((kv.first(), kv.last()), (Some(&0.0), Some(&(16.0 * 992.0))));
    let column = |at: usize| itl.iter().skip(at).step_by(context.len()).copied().collect::<Vec<_>>();
    assert!((0..context.len()).all(|at| column(at).is_sorted()));
    assert!(itl.iter().all(|millis| (6.0..20.0).contains(millis)), "no figure is beyond what the law says at these corners");
}

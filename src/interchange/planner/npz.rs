//! NumPy's archive of arrays: a ZIP of stored entries, each an array in NPY 1.0 (`numpy/lib/format.py`; APPNOTE.TXT 4.3 of PKWARE).

use flate2::Crc;

/// An array.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// `int64`, one dimension.
    Integers(Vec<i64>),
    /// `float64`, one dimension.
    Floats(Vec<f64>),
    /// `float64`, rows by columns, row after row.
    Grid(usize, Vec<f64>),
}

/// The beginning of a ZIP's time, 1980-01-01: the same run gives the same bytes whenever it is exported.
const DATE: u16 = 0x0021;
/// ZIP 2.0, as stored entries need.
const VERSION: u16 = 20;
/// Header and array begin at multiples of this many bytes.
const ALIGNED: usize = 64;

/// The archive, arrays in the order given.
#[must_use]
pub fn archive(arrays: &[(&str, Array)]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, array) in arrays {
        let (name, content) = (format!("{name}.npy"), npy(array));
        let entry = Entry { name: &name, content: &content, offset: bytes.len() };
        entry.local(&mut bytes);
        entry.central(&mut directory);
    }
    let (start, length) = (bytes.len(), directory.len());
    bytes.extend(directory);
    let count = arrays.len() as u16;
    bytes.extend(b"PK\x05\x06");
    bytes.extend([0, 0, count, count].into_iter().flat_map(u16::to_le_bytes));
    bytes.extend([length as u32, start as u32].into_iter().flat_map(u32::to_le_bytes));
    bytes.extend(0_u16.to_le_bytes());
    bytes
}

struct Entry<'a> {
    name: &'a str,
    content: &'a [u8],
    offset: usize,
}

impl Entry<'_> {
    fn local(&self, into: &mut Vec<u8>) {
        into.extend(b"PK\x03\x04");
        into.extend(VERSION.to_le_bytes());
        self.fields(into);
        into.extend(self.name.as_bytes());
        into.extend(self.content);
    }

    fn central(&self, into: &mut Vec<u8>) {
        into.extend(b"PK\x01\x02");
        into.extend([VERSION, VERSION].into_iter().flat_map(u16::to_le_bytes));
        self.fields(into);
        // No comment, the first disk, no attributes.
        into.extend([0_u16; 3].into_iter().flat_map(u16::to_le_bytes));
        into.extend(0_u32.to_le_bytes());
        into.extend((self.offset as u32).to_le_bytes());
        into.extend(self.name.as_bytes());
    }

    /// What both headers have alike: flags, method (stored), time, checksum, lengths.
    fn fields(&self, into: &mut Vec<u8>) {
        let mut crc = Crc::new();
        crc.update(self.content);
        let length = self.content.len() as u32;
        into.extend([0, 0, 0, DATE].into_iter().flat_map(u16::to_le_bytes));
        into.extend([crc.sum(), length, length].into_iter().flat_map(u32::to_le_bytes));
        into.extend([self.name.len() as u16, 0].into_iter().flat_map(u16::to_le_bytes));
    }
}

/// One array: magic, header padded to a multiple of 64, little-endian values.
fn npy(array: &Array) -> Vec<u8> {
    let (kind, shape) = match array {
        Array::Integers(values) => ("<i8", format!("({},)", values.len())),
        Array::Floats(values) => ("<f8", format!("({},)", values.len())),
        Array::Grid(columns, values) => ("<f8", format!("({}, {columns})", values.len() / (*columns).max(1))),
    };
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    // Magic, two bytes of length, the header and its newline.
    let whole = (MAGIC.len() + 2 + header.len() + 1).next_multiple_of(ALIGNED);
    let padded = whole - MAGIC.len() - 2;
    let mut bytes = MAGIC.to_vec();
    bytes.extend((padded as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(whole - 1, b' ');
    bytes.push(b'\n');
    match array {
        Array::Integers(values) => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::Floats(values) | Array::Grid(_, values) => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
    }
    bytes
}

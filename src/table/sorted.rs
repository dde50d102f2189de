//! Rows in the order of a key, whatever order they came in, in bounded memory: sorted chunks go to a file without a name and are merged.
//!
//! The file is gone when the process ends, however it ends, and nobody can open it: so it does not go through the door of final files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::vec;

use bytemuck::Pod;

/// The least number of rows that are read back at once: below it, reading would be slower than merging.
const LEAST: usize = 256;

/// Takes rows in any order and gives them back in the order of their keys; rows with equal keys as they came.
///
/// It holds the rows that were allowed and half as many while it sorts, whatever is pushed; the file holds all of them, once.
pub struct Sorter<T> {
    rows_in_memory: usize,
    folder: PathBuf,
    key: fn(&T) -> i64,
    rows: Vec<T>,
    file: Option<File>,
    /// Rows of each chunk in the file.
    chunks: Vec<u64>,
}

impl<T> fmt::Debug for Sorter<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Sorter({} rows in memory, {} chunks)", self.rows.len(), self.chunks.len())
    }
}

impl<T: Pod> Sorter<T> {
    /// Holds up to `rows_in_memory` rows, at least one, before it writes to a file in `folder`, which must be there and have room
    /// for all rows. Where everything fits, nothing is written.
    #[must_use]
    pub fn new(rows_in_memory: usize, folder: &Path, key: fn(&T) -> i64) -> Self {
        let rows_in_memory = rows_in_memory.max(1);
        Self { rows_in_memory, folder: folder.to_owned(), key, rows: Vec::new(), file: None, chunks: Vec::new() }
    }

    /// Takes a row.
    ///
    /// # Errors
    /// Where the folder cannot be written to or has no room left ([`io::ErrorKind::StorageFull`]).
    pub fn push(&mut self, row: T) -> io::Result<()> {
        if self.rows.len() == self.rows_in_memory {
            self.write_chunk()?;
        }
        self.rows.push(row);
        Ok(())
    }

    /// All rows in order.
    ///
    /// # Errors
    /// As [`Sorter::push`]; and where the file cannot be read back, from the iterator, which then ends.
    pub fn finish(mut self) -> io::Result<Sorted<T>> {
        if self.file.is_some() && !self.rows.is_empty() {
            self.write_chunk()?;
        }
        let Some(file) = self.file else {
            self.rows.sort_by_key(self.key);
            return Ok(Sorted(From::Memory(self.rows.into_iter())));
        };
        // The memory of the rows is free again, and divided among the chunks.
        drop(self.rows);
        let at_once = (self.rows_in_memory / self.chunks.len()).max(LEAST);
        let mut merge = Merge { file, key: self.key, chunks: Vec::new(), next: BinaryHeap::new() };
        let mut from = 0;
        for (at, rows) in self.chunks.into_iter().enumerate() {
            let mut chunk = Chunk { from, left: rows, rows: Vec::new(), next: 0, at_once };
            from += rows;
            if let Some(row) = chunk.take(&merge.file)? {
                merge.next.push(Reverse(Next { key: (self.key)(&row), chunk: at, row }));
            }
            merge.chunks.push(chunk);
        }
        Ok(Sorted(From::File(merge)))
    }

    fn write_chunk(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(&self.folder)?),
        };
        self.rows.sort_by_key(self.key);
        file.write_all(bytemuck::cast_slice(&self.rows))?;
        self.chunks.push(self.rows.len() as u64);
        self.rows.clear();
        Ok(())
    }
}

/// Rows in order.
pub struct Sorted<T>(From<T>);

enum From<T> {
    Memory(vec::IntoIter<T>),
    File(Merge<T>),
}

struct Merge<T> {
    file: File,
    key: fn(&T) -> i64,
    chunks: Vec<Chunk<T>>,
    next: BinaryHeap<Reverse<Next<T>>>,
}

/// The first row left of a chunk. Of equal keys the earlier chunk comes first, as it came first.
struct Next<T> {
    key: i64,
    chunk: usize,
    row: T,
}

impl<T> Next<T> {
    fn order(&self) -> (i64, usize) {
        (self.key, self.chunk)
    }
}

impl<T> PartialEq for Next<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<T> Eq for Next<T> {}

impl<T> PartialOrd for Next<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Next<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// A chunk in the file, as far as it is read back.
struct Chunk<T> {
    /// The next row of the file that is to be read, in rows.
    from: u64,
    left: u64,
    rows: Vec<T>,
    next: usize,
    at_once: usize,
}

impl<T: Pod> Chunk<T> {
    fn take(&mut self, file: &File) -> io::Result<Option<T>> {
        if self.next == self.rows.len() {
            let count = self.left.min(self.at_once as u64);
            self.rows.resize(count as usize, T::zeroed());
            file.read_exact_at(bytemuck::cast_slice_mut(&mut self.rows), self.from * size_of::<T>() as u64)?;
            self.from += count;
            self.left -= count;
            self.next = 0;
        }
        let row = self.rows.get(self.next).copied();
        self.next += 1;
        Ok(row)
    }
}

impl<T: Pod> Merge<T> {
    fn take(&mut self) -> io::Result<Option<T>> {
        let Some(mut first) = self.next.peek_mut() else { return Ok(None) };
        let Reverse(next) = &mut *first;
        let row = next.row;
        match self.chunks[next.chunk].take(&self.file)? {
            Some(following) => {
                next.key = (self.key)(&following);
                next.row = following;
            }
            None => drop(PeekMut::pop(first)),
        }
        Ok(Some(row))
    }
}

impl<T> fmt::Debug for Sorted<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            From::Memory(rows) => write!(out, "Sorted({} rows in memory)", rows.len()),
            From::File(merge) => write!(out, "Sorted({} chunks)", merge.chunks.len()),
        }
    }
}

impl<T: Pod> Iterator for Sorted<T> {
    type Item = io::Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            From::Memory(rows) => rows.next().map(Ok),
            From::File(merge) => {
                let row = merge.take();
                if row.is_err() {
                    merge.next.clear();
                }
                row.transpose()
            }
        }
    }
}

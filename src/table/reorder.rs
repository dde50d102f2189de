//! Rows that come nearly in order of a key, in order: several machines that write one log, or lines written as a call ends.

/// Holds back so many rows and gives them in order; one that comes later than that is told.
#[derive(Debug)]
pub struct Reorder<T> {
    rows: Vec<T>,
    hold: usize,
    key: fn(&T) -> i64,
    given: Option<i64>,
}

/// A row came after later ones had been given already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLate;

impl<T: Copy> Reorder<T> {
    /// Holds back `hold` rows at least, and twice as many at most beside those that come in at once.
    #[must_use]
    pub fn new(hold: usize, key: fn(&T) -> i64) -> Self {
        Self { rows: Vec::new(), hold, key, given: None }
    }

    /// Takes rows, and gives those that enough others have come after. Equal keys stay in the order in which they came.
    ///
    /// # Errors
    /// When one of them belongs before a row that was given.
    pub fn push(&mut self, rows: &[T], give: impl FnMut(&[T])) -> Result<(), TooLate> {
        self.rows.extend_from_slice(rows);
        // Twice as many before anything moves: each row is then moved about once.
        if self.rows.len() >= 2 * self.hold.max(1) { self.release(self.rows.len() - self.hold, give) } else { Ok(()) }
    }

    /// Gives the rest.
    ///
    /// # Errors
    /// When one of them belongs before a row that was given.
    pub fn finish(mut self, give: impl FnMut(&[T])) -> Result<(), TooLate> {
        self.release(self.rows.len(), give)
    }

    fn release(&mut self, count: usize, mut give: impl FnMut(&[T])) -> Result<(), TooLate> {
        if !self.rows.is_sorted_by_key(self.key) {
            self.rows.sort_by_key(self.key);
        }
        let (first, last) = match &self.rows[..count] {
            [] => return Ok(()),
            [only] => ((self.key)(only), (self.key)(only)),
            [first, .., last] => ((self.key)(first), (self.key)(last)),
        };
        if self.given.is_some_and(|given| first < given) {
            return Err(TooLate);
        }
        self.given = Some(last);
        give(&self.rows[..count]);
        self.rows.drain(..count);
        Ok(())
    }
}

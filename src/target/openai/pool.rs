//! The connections of a client: which are free, and whose requests the others carry.

use crate::target::Slot;
use crate::target::openai::connection::Connection;

const NONE: u32 = u32::MAX;

/// Connections by place; a place keeps its number while its connection is looked after elsewhere.
#[derive(Debug, Default)]
pub(super) struct Pool {
    connections: Vec<Option<Box<Connection>>>,
    /// Places without a connection.
    vacant: Vec<usize>,
    /// Free connections, the one used last on top: it is the least likely to have been closed.
    idle: Vec<usize>,
    /// The place of each slot's request.
    owners: Vec<u32>,
}

impl Pool {
    /// Places there are, vacant ones too.
    pub(super) fn places(&self) -> usize {
        self.connections.len()
    }

    /// Connections there are.
    pub(super) fn open(&self) -> usize {
        self.connections.len() - self.vacant.len()
    }

    /// The connection at `place`, to look at.
    pub(super) fn at(&self, place: usize) -> Option<&Connection> {
        self.connections.get(place)?.as_deref()
    }

    /// Takes the connection out of `place`, to be put back or let go.
    pub(super) fn take(&mut self, place: usize) -> Option<Box<Connection>> {
        self.connections.get_mut(place)?.take()
    }

    /// Puts it back.
    pub(super) fn put(&mut self, place: usize, connection: Box<Connection>) {
        self.connections[place] = Some(connection);
    }

    /// A place for a new connection.
    pub(super) fn place(&mut self) -> usize {
        self.vacant.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        })
    }

    /// The connection that was taken out of `place` is gone.
    pub(super) fn vacate(&mut self, place: usize) {
        self.vacant.push(place);
    }

    /// The connection at `place` is free.
    pub(super) fn rest(&mut self, place: usize) {
        self.idle.push(place);
    }

    /// A free connection.
    pub(super) fn wake(&mut self) -> Option<usize> {
        self.idle.pop()
    }

    /// The connection at `place` is not free any more.
    pub(super) fn forget_idle(&mut self, place: usize) {
        self.idle.retain(|idle| *idle != place);
    }

    /// The request of `slot` is carried at `place`.
    pub(super) fn own(&mut self, slot: Slot, place: usize) {
        let slot = slot.0 as usize;
        if slot >= self.owners.len() {
            self.owners.resize(slot + 1, NONE);
        }
        self.owners[slot] = place as u32;
    }

    /// The request of `slot` is over.
    pub(super) fn release(&mut self, slot: Slot) {
        if let Some(owner) = self.owners.get_mut(slot.0 as usize) {
            *owner = NONE;
        }
    }

    /// Where the request of `slot` is carried.
    pub(super) fn owner(&self, slot: Slot) -> Option<usize> {
        self.owners.get(slot.0 as usize).copied().filter(|place| *place != NONE).map(|place| place as usize)
    }
}

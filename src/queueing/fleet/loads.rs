//! How many calls each replica has, and which one that takes calls has the fewest.
//!
//! The least of them is found by halves: each node of a binary tree over all replicas knows the smallest load beneath it, so a fleet of
//! thousands costs a call a dozen comparisons.

/// The load of a replica that takes no calls, in the tree.
const CLOSED: u32 = u32::MAX;

/// Loads of all replicas there ever were.
#[derive(Debug, Default)]
pub(super) struct Loads {
    loads: Vec<u32>,
    /// Those that take calls, in order.
    ready: Vec<u32>,
    /// The smallest load beneath each node, the root at 1, the leaves in the second half: a power of two of them.
    least: Vec<u32>,
}

impl Loads {
    /// A replica more, which takes calls.
    pub(super) fn open(&mut self) {
        let replica = self.loads.len() as u32;
        self.loads.push(0);
        self.ready.push(replica);
        if self.loads.len() > self.least.len() / 2 {
            self.rebuild();
        } else {
            self.set(replica, 0);
        }
    }

    /// The newest one that takes calls takes none any more; which that is.
    pub(super) fn close_newest(&mut self) -> Option<u32> {
        let replica = self.ready.pop()?;
        self.set(replica, CLOSED);
        Some(replica)
    }

    /// Those that take calls, in order.
    pub(super) fn ready(&self) -> &[u32] {
        &self.ready
    }

    /// Whether it takes calls.
    pub(super) fn is_ready(&self, replica: u32) -> bool {
        self.ready.binary_search(&replica).is_ok()
    }

    /// Calls that it has.
    pub(super) fn of(&self, replica: u32) -> u32 {
        self.loads[replica as usize]
    }

    /// It has so many calls now.
    pub(super) fn change(&mut self, replica: u32, load: u32) {
        self.loads[replica as usize] = load;
        if self.least[self.least.len() / 2 + replica as usize] != CLOSED {
            self.set(replica, load);
        }
    }

    /// The one with the fewest calls of those that take some, the next from `from` on where several have. `None` where none takes any.
    pub(super) fn least_from(&self, from: u32) -> Option<u32> {
        let least = *self.least.get(1).filter(|least| **least != CLOSED)?;
        self.next_with(least, from).or_else(|| self.next_with(least, 0))
    }

    /// The first from `from` on that has `load`, which no ready one is below.
    fn next_with(&self, load: u32, from: u32) -> Option<u32> {
        let leaves = self.least.len() / 2;
        let mut node = leaves + from as usize;
        // Up, to the right, until there is one beneath; then down to the first.
        while self.least[node] != load {
            while node & 1 == 1 {
                node /= 2;
            }
            if node == 0 {
                return None;
            }
            node += 1;
        }
        while node < leaves {
            node = 2 * node + usize::from(self.least[2 * node] != load);
        }
        Some((node - leaves) as u32)
    }

    fn set(&mut self, replica: u32, load: u32) {
        let mut node = self.least.len() / 2 + replica as usize;
        self.least[node] = load;
        while node > 1 {
            node /= 2;
            let least = self.least[2 * node].min(self.least[2 * node + 1]);
            if self.least[node] == least {
                break;
            }
            self.least[node] = least;
        }
    }

    fn rebuild(&mut self) {
        let leaves = self.loads.len().next_power_of_two();
        self.least = vec![CLOSED; 2 * leaves];
        for replica in &self.ready {
            self.least[leaves + *replica as usize] = self.loads[*replica as usize];
        }
        for node in (1..leaves).rev() {
            self.least[node] = self.least[2 * node].min(self.least[2 * node + 1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Loads;

    proptest! {
        #[test]
        fn the_least_loaded_is_the_one_that_a_look_at_all_finds(
            steps in prop::collection::vec((0_u32..10, any::<u32>(), 0_u32..4), 1..200),
        ) {
            let mut loads = Loads::default();
            for (what, which, load) in steps {
                let known = loads.loads.len() as u32;
                match what {
                    0..3 => loads.open(),
                    3 => { loads.close_newest(); }
                    _ if known > 0 => loads.change(which % known, load),
                    _ => {}
                }
                let ready = loads.ready().to_vec();
                let from = if ready.is_empty() { 0 } else { ready[which as usize % ready.len()] };
                let (head, tail): (Vec<u32>, Vec<u32>) = ready.iter().partition(|replica| **replica < from);
                let looked = tail.into_iter().chain(head).min_by_key(|replica| loads.of(*replica));
                prop_assert_eq!(loads.least_from(from), looked);
            }
        }
    }
}

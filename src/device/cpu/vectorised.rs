//! Compiles a piece of plain code for the widest instruction set and picks the right version at run time.

use pulp::{Arch, NullaryFnOnce};

/// A closure that is called as `FnMut`: called as `FnOnce` it would go through an adapter that is compiled for the
/// oldest processors.
struct Inlined<F>(F);

impl<R, F: FnMut() -> R> NullaryFnOnce for Inlined<F> {
    type Output = R;

    #[inline(always)]
    fn call(mut self) -> R {
        (self.0)()
    }
}

/// Runs `piece`, which should be `#[inline(always)] ||` and call only what is inlined, as vector code.
#[inline(always)]
pub(super) fn vectorised<R>(arch: Arch, piece: impl FnMut() -> R) -> R {
    arch.dispatch(Inlined(piece))
}

//! A caller's own threads in place of a pool.

use std::cell::Cell;
use std::sync::Mutex;

/// A caller's own threads: computes the parts `0..parts` of a step by calling `task` once for each, in any order, on any
/// thread, and returns when all are done.
#[derive(Clone, Copy)]
pub(crate) struct ParallelFor {
    pub(crate) run: fn(context: usize, parts: usize, task: &(dyn Fn(usize) + Sync)),
    pub(crate) context: usize,
}

thread_local! {
    /// What steps on this thread are handed to, as `rayon::join` finds the pool that is installed on its thread.
    static INSTALLED: Cell<Option<ParallelFor>> = const { Cell::new(None) };
}

impl ParallelFor {
    /// Hands the steps of `run` to these threads.
    pub(crate) fn install<R>(self, run: impl FnOnce() -> R) -> R {
        struct Restore(Option<ParallelFor>);
        impl Drop for Restore {
            fn drop(&mut self) {
                INSTALLED.set(self.0);
            }
        }
        let _restore = Restore(INSTALLED.replace(Some(self)));
        run()
    }

    /// The threads that steps on this one are handed to.
    pub(super) fn installed() -> Option<Self> {
        INSTALLED.get()
    }

    /// Cuts `piece` in at most `parts` pieces, which wait in a list on the stack, and has them computed.
    pub(super) fn hand_out<P: Send>(
        self,
        piece: P,
        parts: usize,
        split: &impl Fn(P, usize) -> (P, Option<P>),
        compute: &(dyn Fn(P) + Sync),
    ) {
        self.hand_out_after(None, piece, parts, split, compute);
    }

    fn hand_out_after<P: Send>(
        self,
        before: Option<&Waiting<'_, P>>,
        piece: P,
        parts: usize,
        split: &impl Fn(P, usize) -> (P, Option<P>),
        compute: &(dyn Fn(P) + Sync),
    ) {
        let (first, rest) = split(piece, parts);
        let count = before.map_or(0, |waiting| waiting.count) + 1;
        let waiting = Waiting { piece: Mutex::new(Some(first)), before, count };
        if let Some(rest) = rest {
            return self.hand_out_after(Some(&waiting), rest, parts - 1, split, compute);
        }
        let task = |index: usize| {
            let piece = waiting.find(index).and_then(|waiting| waiting.piece.lock().ok()?.take());
            if let Some(piece) = piece {
                compute(piece);
            }
        };
        (self.run)(self.context, count, &task);
        // What was left out, against the rules, is computed here.
        (0..count).for_each(task);
    }
}

/// A piece that waits for a thread, and those before it.
struct Waiting<'l, P> {
    piece: Mutex<Option<P>>,
    before: Option<&'l Waiting<'l, P>>,
    /// Pieces up to this one.
    count: usize,
}

impl<'l, P> Waiting<'l, P> {
    fn find(&self, index: usize) -> Option<&Waiting<'l, P>> {
        let mut at = (index < self.count).then_some(self)?;
        while at.count > index + 1 {
            at = at.before?;
        }
        Some(at)
    }
}

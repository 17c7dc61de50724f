//! Shards: what one worker thread allocates from.
//!
//! Owns the shard's structure and everything that can be done with a shard alone; what needs
//! buckets or the pool is composed in `heap/`. The protocol, fields x who x when, is
//! `docs/invariants/heap.md`; the rules are cited as H1, H2, ...
//!
//! * [`fast`] is the path of nearly every call: pop a block, push a block.
//! * [`lists`] keeps a class's slabs: current, partly used, full, reserve.
//! * [`lent`] has blocks of common slabs, for classes of which the shard uses little.
//! * [`inbox`] and [`outbox`] carry frees between shards.
//! * [`lease`] says who has the shard.

mod fast;
pub(crate) mod inbox;
pub(crate) mod lease;
mod lent;
mod lists;
mod outbox;

pub(crate) use {
    fast::Freed,
    imp::Shard,
    lent::LEND_BYTES,
    lists::owner_word,
    outbox::{Chain, OUTBOX_BYTES, Pending},
};

pub(crate) mod imp {
    use std::ptr;

    use super::inbox::{Inbox, Post};
    use super::lease::Lease;
    use super::outbox::{Outbox, Pending};
    use crate::counter::{Counter, Figure, SharedCounter};
    use crate::layout::{
        ChainWord, EMPTY_SLAB, Head, LinkKey, List, MAX_CLASSES, Owner, SlabList, SlabPtr,
    };
    use crate::shown::Shown;
    use crate::sync::{AtomicPtr, Cell, Ordering, const_off_loom, per_execution};

    /// What one worker thread allocates from.
    #[repr(C, align(128))]
    pub(crate) struct Shard {
        /// Per class, the blocks next to be allocated: the ready list, taken from the current slab
        /// all at once. A [`List`].
        pub(super) ready: [Shown; MAX_CLASSES],
        /// The heap's link key, copied here for the fast path.
        pub(super) key: LinkKey,
        /// Per class, the slab whose blocks are ready; [`EMPTY_SLAB`] where there is none.
        pub(super) current: [Cell<SlabPtr>; MAX_CLASSES],
        /// Per class, blocks that were made ready or lent: allocated, but for those that still are.
        pub(super) taken: [Counter; MAX_CLASSES],
        /// Per class, blocks that went back from there unused.
        pub(super) returned: [Counter; MAX_CLASSES],
        /// Per class, blocks taken back, as far as the slabs they belong to were looked at.
        pub(super) frees: [Counter; MAX_CLASSES],
        /// Per class, `allocs - frees` as last told to the heap's sum, modulo 2^64.
        told: [Counter; MAX_CLASSES],
        /// Per class, slabs with free blocks that are not current.
        pub(super) partial: [SlabList; MAX_CLASSES],
        /// Per class, free blocks that the bucket lent, linked; see [`lent`](super::lent).
        pub(super) lent: [Shown; MAX_CLASSES],
        /// Per class, one empty slab kept against the next burst, or null.
        pub(super) reserve: [Cell<SlabPtr>; MAX_CLASSES],
        /// When the holder last gave back empty slabs of idle classes, in coarse milliseconds.
        trimmed: Cell<u32>,
        /// Per class, blocks that others freed and this shard took back.
        pub(crate) remote_frees: [Counter; MAX_CLASSES],
        /// Per class, times that the current slab ran out.
        pub(crate) refills: [Counter; MAX_CLASSES],
        /// Frees for other owners.
        pub(crate) outbox: Outbox,
        pub(crate) counters: ShardCounters,
        /// The largest totals of blocks that statistics showed.
        shown_allocs: SharedCounter,
        shown_frees: SharedCounter,
        /// Where others post. On a cache line that the owner's fast path never touches.
        pub(crate) inbox: Apart<Inbound>,
        pub(crate) lease: Lease,
        /// Coarse milliseconds at which the shard was last parked or given back.
        pub(crate) resting_since: Figure,
        /// The rest, by its beginning, in which partly used slabs were last purged.
        purged_rest: Figure,
        /// Number of the shard in its heap.
        pub(crate) index: u32,
        next: AtomicPtr<Shard>,
    }

    /// Counters of a shard beyond the per-class ones. Written by whoever has the shard.
    #[derive(Debug)]
    pub(crate) struct ShardCounters {
        pub(crate) leases: Counter,
        pub(crate) parks: Counter,
        pub(crate) claims: Counter,
        pub(crate) slabs: Counter,
        pub(crate) posted_blocks: Counter,
        pub(crate) posted_batches: Counter,
        pub(crate) drained_blocks: Counter,
        pub(crate) drained_batches: Counter,
        pub(crate) forwarded_batches: Counter,
        pub(crate) retired_bytes: Counter,
        pub(crate) reclaimed_bytes: Counter,
    }

    /// What others post to.
    pub(crate) struct Inbound {
        inbox: Inbox<InboxNode>,
        /// When the inbox was last found empty by a post, in coarse milliseconds. Written after the
        /// post, so it may be a post late: a gauge.
        since: Figure,
    }

    /// A value on cache lines of its own; two, because processors fetch them in pairs.
    #[repr(align(128))]
    pub(crate) struct Apart<T>(pub(crate) T);

    /// The [`Head`] of a posted chain, which a pointer to this stands for.
    #[repr(transparent)]
    pub(crate) struct InboxNode(u8);

    // SAFETY: rule H1: every `Cell` belongs to whoever has the shard (leaseholder or claimer), and
    // the lease's exchanges order one holder's accesses before the next one's. The rest is atomic.
    unsafe impl Sync for Shard {}
    // SAFETY: as above; nothing in a shard is tied to a thread but through the lease.
    unsafe impl Send for Shard {}

    per_execution! {
        /// Where a thread without a shard points: no class has a slab and nobody owns it, so every
        /// fast path falls through to the slow one without a check of its own. Never written.
        pub(crate) static SENTINEL: Shard = Shard::new(LinkKey(0), u32::MAX);
    }

    impl Shard {
        const_off_loom! {
            /// A shard that its maker has leased.
            pub(crate) fn new(key: LinkKey, index: u32) -> Self {
                Self {
                    ready: [const { Shown::new(0) }; MAX_CLASSES],
                    key,
                    current: [const { Cell::new(&raw const EMPTY_SLAB) }; MAX_CLASSES],
                    taken: [const { Counter::new() }; MAX_CLASSES],
                    returned: [const { Counter::new() }; MAX_CLASSES],
                    frees: [const { Counter::new() }; MAX_CLASSES],
                    told: [const { Counter::new() }; MAX_CLASSES],
                    partial: [const { SlabList::new() }; MAX_CLASSES],
                    lent: [const { Shown::new(0) }; MAX_CLASSES],
                    reserve: [const { Cell::new(ptr::null()) }; MAX_CLASSES],
                    trimmed: Cell::new(0),
                    remote_frees: [const { Counter::new() }; MAX_CLASSES],
                    refills: [const { Counter::new() }; MAX_CLASSES],
                    outbox: Outbox::new(),
                    counters: ShardCounters {
                        leases: Counter::new(),
                        parks: Counter::new(),
                        claims: Counter::new(),
                        slabs: Counter::new(),
                        posted_blocks: Counter::new(),
                        posted_batches: Counter::new(),
                        drained_blocks: Counter::new(),
                        drained_batches: Counter::new(),
                        forwarded_batches: Counter::new(),
                        retired_bytes: Counter::new(),
                        reclaimed_bytes: Counter::new(),
                    },
                    shown_allocs: SharedCounter::new(),
                    shown_frees: SharedCounter::new(),
                    inbox: Apart(Inbound { inbox: Inbox::new(), since: Figure::new(0) }),
                    lease: Lease::new_leased(),
                    resting_since: Figure::new(0),
                    purged_rest: Figure::new(0),
                    index,
                    next: AtomicPtr::new(ptr::null_mut()),
                }
            }
        }

        /// The stand-in for "no shard".
        pub(crate) fn sentinel() -> &'static Shard {
            &SENTINEL
        }

        /// Whether this is the stand-in.
        #[inline(always)]
        pub(crate) fn is_sentinel(&self) -> bool {
            ptr::eq(self, Self::sentinel())
        }

        /// The word that marks this shard's slabs.
        #[inline(always)]
        pub(crate) fn owner(&self) -> Owner {
            Owner::shard(ptr::from_ref(self).expose_provenance())
        }

        pub(crate) fn key(&self) -> LinkKey {
            self.key
        }

        /// Blocks of a class allocated so far. Any thread; behind by a ready list for the moment in
        /// which one is made, and never ahead.
        pub(crate) fn class_allocs(&self, class: usize) -> u64 {
            // In this order: what is made ready meanwhile is spare and not yet taken, and what goes
            // back meanwhile has been counted as returned when it is not spare any more.
            let taken = self.class_taken(class);
            let spare = self.class_spare(class);
            taken.saturating_sub(spare).saturating_sub(self.class_returned(class))
        }

        /// Blocks of a class that left their slabs for this shard so far. Any thread.
        pub(crate) fn class_taken(&self, class: usize) -> u64 {
            self.taken[class].get_before()
        }

        /// Blocks of a class that went back to their slabs unused so far. Any thread.
        pub(crate) fn class_returned(&self, class: usize) -> u64 {
            self.returned[class].get()
        }

        /// Blocks of a class that are out of their slabs and in nobody's use: ready, or lent and not
        /// used yet. Any thread.
        pub(crate) fn class_spare(&self, class: usize) -> u64 {
            self.class_ready(class) + u64::from(List::of(self.lent[class].glance()).len())
        }

        /// Blocks of a class that are ready: out of a slab, and in nobody's use. Any thread.
        pub(crate) fn class_ready(&self, class: usize) -> u64 {
            u64::from(List::of(self.ready[class].glance()).len())
        }

        /// Blocks of a class taken back so far, but for the last few of each slab. Any thread.
        pub(crate) fn class_frees(&self, class: usize) -> u64 {
            self.frees[class].get()
        }

        /// How `allocs - frees` of a class changed since it was last told, modulo 2^64. The holder
        /// only.
        pub(crate) fn untold(&self, class: usize) -> u64 {
            let now = self.class_allocs(class).wrapping_sub(self.class_frees(class));
            now.wrapping_sub(self.told[class].get())
        }

        /// The same, and now it is told. The holder only.
        pub(crate) fn tell(&self, class: usize) -> u64 {
            let change = self.untold(class);
            self.told[class].set(self.told[class].get().wrapping_add(change));
            change
        }

        /// Raises the totals that statistics show to these, and returns them: they never fall. Any
        /// thread.
        pub(crate) fn show(&self, allocs: u64, frees: u64) -> (u64, u64) {
            self.shown_allocs.raise_to(allocs);
            self.shown_frees.raise_to(frees);
            (self.shown_allocs.get(), self.shown_frees.get())
        }

        /// Milliseconds since the shard was last parked or given back. Any thread.
        pub(crate) fn resting_millis(&self) -> u32 {
            // This order: a shard that comes to rest between the two reads has a small age and not
            // a wrapped one.
            let since = self.resting_since.get();
            crate::os::coarse_millis().wrapping_sub(since)
        }

        /// Whether partly used slabs were purged since the shard came to rest. The holder only.
        pub(crate) fn purged_in_this_rest(&self) -> bool {
            self.purged_rest.get() == self.resting_since.get()
        }

        /// Makes that a "no": blocks came back since. The holder only.
        pub(crate) fn forget_purge(&self) {
            self.purged_rest.set(self.resting_since.get().wrapping_sub(1));
        }

        /// Notes that they were. The holder only.
        pub(crate) fn note_purge(&self) {
            self.purged_rest.set(self.resting_since.get());
        }

        /// Whether the shard was not trimmed for so many milliseconds; from now on it was. The holder
        /// only.
        pub(crate) fn trim_is_due(&self, now: u32, period: u32) -> bool {
            let due = now.wrapping_sub(self.trimmed.get()) > period;
            if due {
                self.trimmed.set(now);
            }
            due
        }

        /// The shard made before this one.
        pub(crate) fn next(&self) -> *mut Shard {
            // Acquire pairs with the release of the list's head in `ShardList`; see there.
            self.next.load(Ordering::Acquire)
        }

        /// Links the shard into its heap's list, before it is published.
        pub(crate) fn set_next(&self, next: *mut Shard) {
            self.next.store(next, Ordering::Release);
        }

        /// Posts a chain of blocks of this shard's slabs.
        ///
        /// # Safety
        /// The caller owns the chain's blocks and gives them up.
        pub(crate) unsafe fn post(&self, head: Head, word: ChainWord) {
            let node = head.raw().cast();
            // SAFETY: the caller owns the blocks; `head` is the chain's.
            unsafe {
                word.write(head);
                if self.inbox.0.inbox.post(node, node) {
                    self.inbox.0.since.set(crate::os::coarse_millis());
                }
            }
        }

        /// Posts chains that are linked by their words.
        ///
        /// # Safety
        /// The caller owns the chains' blocks and gives them up; their words are written.
        pub(crate) unsafe fn post_chains(&self, chains: &Pending) {
            let (head, last) = (chains.head.raw().cast(), chains.last.raw().cast());
            // SAFETY: by contract.
            if unsafe { self.inbox.0.inbox.post(head, last) } {
                self.inbox.0.since.set(crate::os::coarse_millis());
            }
        }

        /// Milliseconds that the oldest posted chain has waited, if one waits. Any thread.
        pub(crate) fn inbox_millis(&self) -> Option<u32> {
            let since = self.inbox.0.since.get();
            let waits = !self.inbox.0.inbox.is_empty();
            waits.then(|| crate::os::coarse_millis().wrapping_sub(since))
        }
    }

    impl Inbound {
        /// Takes everything that was posted: the first chain, if any. The holder only.
        pub(crate) fn take(&self) -> Head {
            Head::of_raw(self.inbox.take().cast())
        }
    }

    impl Post for InboxNode {
        unsafe fn set_next(node: *mut Self, next: *mut Self) {
            let (head, next) = (Head::of_raw(node.cast()), Head::of_raw(next.cast()));
            // SAFETY: the caller has exclusive use of the chain, whose word was written in `post`.
            unsafe { ChainWord::read(head).with_next(next).write(head) };
        }
    }
}

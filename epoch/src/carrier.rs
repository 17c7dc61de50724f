//! Carriers and riders: retiring many small objects for the price of noting each one.
//!
//! A structure of small objects has no room in each of them for a [`RetireNode`]. It keeps an array of
//! them instead, the *carrier*, which has a node, and retires that. As long as the carrier's batch is
//! still open, further objects may join the carrier: they are then handed over with it, no sooner than
//! they were unlinked. They count like any other object, in statistics, in the batch's size, and
//! against the limits. What flush, park, the batch's age and the end of the thread do for the batch,
//! they do for the riders.
//!
//! Batches are told apart by numbers that are never used twice in a domain, so a carrier of an earlier
//! batch, or of an earlier participant, is never taken for one that still takes riders (rule R8).

use std::ptr::NonNull;

use crate::batch::node::{Reclaim, RetireNode};
use crate::batch::open::Room;
use crate::participant::Participant;
use crate::retire::{RetireError, countable};

/// The batch that a carrier has joined, to be shown when a rider wants to join the carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carrier(u64);

impl Carrier {
    /// Of no batch: takes no riders.
    pub const NONE: Self = Self(0);
}

/// Room for one rider, to be taken at once or not at all.
#[must_use = "a rider that is not counted is reclaimed without having been retired"]
pub struct Seat(Room);

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad("Seat { .. }")
    }
}

impl Participant {
    /// Retires an array of objects through the node in it, as [`retire`](Self::retire) does, and says
    /// which batch it has joined. `bytes` is what it holds already counts for; it counts as one object.
    ///
    /// # Safety
    /// As for [`retire`](Self::retire), for the array and for what is in it.
    #[inline]
    pub unsafe fn retire_carrier(
        &self,
        node: NonNull<RetireNode>,
        bytes: usize,
        reclaim: Reclaim,
    ) -> Carrier {
        let room = self.make_room(bytes);
        let carrier = Carrier(self.open().number());
        // SAFETY: the caller's promises are rules R1 to R4.
        let complete = unsafe { self.open().push(self.record(), room, node, reclaim) };
        self.joined(complete);
        carrier
    }

    /// Like [`retire_carrier`](Self::retire_carrier), within the hard limit.
    ///
    /// # Errors
    /// As for [`try_retire`](Self::try_retire).
    ///
    /// # Safety
    /// As for [`retire_carrier`](Self::retire_carrier).
    #[inline]
    pub unsafe fn try_retire_carrier(
        &self,
        node: NonNull<RetireNode>,
        bytes: usize,
        reclaim: Reclaim,
    ) -> Result<Carrier, RetireError<NonNull<RetireNode>>> {
        let room = self.try_make_room(bytes).map_err(|full| full.map(|()| node))?;
        let carrier = Carrier(self.open().number());
        // SAFETY: as in `retire_carrier`.
        let complete = unsafe { self.open().push(self.record(), room, node, reclaim) };
        self.joined(complete);
        Ok(carrier)
    }

    /// A seat for an object of `bytes` in the carrier, if its batch is still open, and the bytes are
    /// within what is reserved for it, hence within the hard limit.
    #[inline]
    pub fn seat(&self, carrier: Carrier, bytes: usize) -> Option<Seat> {
        let open = self.open();
        if carrier.0 != open.number() {
            return None;
        }
        open.room(self.record(), countable(bytes)).map(Seat)
    }

    /// Counts an object that has just taken its seat. The batch may be handed over in this call, and
    /// reclaim functions may run.
    ///
    /// # Safety
    /// - [`seat`](Self::seat) gave the seat, and this participant was not used since.
    /// - The object is in the carrier, whose reclaim function is its own too. What
    ///   [`retire`](Self::retire) asks of an object holds for it.
    #[inline]
    pub unsafe fn ride(&self, seat: Seat) {
        self.joined(self.open().count(self.record(), seat.0));
    }
}

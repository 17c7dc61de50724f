//! The value that keeps a participant inside.

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;

use crate::domain::Domain;
use crate::participant::Participant;

/// What the holder reads of its domain's structures is not reclaimed while this lives.
///
/// A guard belongs to the thread of its participant, so it cannot be held across an `.await` of a
/// future that moves between threads:
///
/// ```compile_fail,E0277
/// fn assert_send<T: Send>(_: T) {}
/// let domain = flagstone_epoch::Domain::new();
/// let participant = domain.register();
/// assert_send(participant.pin());
/// ```
///
/// It is short-lived by intent: one guard held holds all retired memory of its domain. The domain
/// reports the oldest ([`Domain::oldest_guard`]), and warns when one stalls.
#[must_use = "a guard protects nothing once it is dropped"]
pub struct Guard<'p> {
    participant: &'p Participant,
    /// The participant is `!Sync`, which makes this `!Send` already; said again, for it is a promise.
    _not_send: PhantomData<*mut ()>,
}

impl<'p> Guard<'p> {
    #[inline]
    pub(crate) fn new(participant: &'p Participant) -> Self {
        Self { participant, _not_send: PhantomData }
    }

    /// The participant that took it: what to retire through.
    #[inline]
    pub fn participant(&self) -> &'p Participant {
        self.participant
    }

    /// True if this is a guard of `domain`.
    #[inline]
    pub fn is_of(&self, domain: &Domain) -> bool {
        self.participant.is_in(domain)
    }

    /// Ends the guard and takes it anew, so that a long loop does not keep old memory. Nothing read
    /// before may be used after, as the exclusive borrow sees to.
    ///
    /// Returns false, and does nothing, while the participant holds another guard or is entered.
    #[track_caller]
    pub fn repin(&mut self) -> bool {
        self.participant.repin(Location::caller())
    }
}

/// The participant that took it, for whoever retires through either.
impl AsRef<Participant> for Guard<'_> {
    fn as_ref(&self) -> &Participant {
        self.participant
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.participant.release();
    }
}

impl fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("participant", self.participant).finish()
    }
}

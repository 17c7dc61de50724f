//! Upkeep: what threads leave behind when they sleep or end.
//!
//! A shard belongs to the participant of its number. Of a participant that has ended, the number is
//! free; whoever registers next has it, and the shard with it. Maintenance does just that, number after
//! number, so it needs no other way into a shard than everybody's (rule T1).

use flagstone_epoch::Participant;

use super::core::Table;
use super::mode::Mode;
use super::trim::Returned;

impl<T, M: Mode<T>> Table<T, M> {
    /// Gives the free slots of the participant's shard to its bucket.
    pub(super) fn park(&self, participant: &Participant) {
        assert!(participant.is_in(&self.domain), "the participant is of another domain");
        let Some(shard) = self.core.shard(participant) else { return };
        if shard.magazine().len() == 0 {
            return;
        }
        // Without a second chunk to take its place the slots stay.
        let Ok(empty) = shard.take_spare(&self.core) else { return };
        let slots = shard.swap_magazine(empty);
        let home = self.core.home(participant);
        // SAFETY: rule T3: swapped out just now.
        unsafe { slots.as_ref() }.home.set(home as u16);
        if let Some(empty) = self.core.buckets[home].put(slots) {
            shard.put_spare(empty);
        }
    }

    pub(super) fn maintain(&self) -> Returned {
        // Registering takes the lowest free number, so all that are free and may have a shard come
        // one after the other.
        let mut ended = Vec::new();
        loop {
            // Without memory this goes as far as it can.
            if ended.try_reserve(1).is_err() {
                break Returned::default();
            }
            let Ok(participant) = self.domain.try_register() else {
                break ended.last().map_or_else(Returned::default, |at| self.maintain_as(at));
            };
            let last = participant.number() >= self.core.shard_numbers();
            self.park(&participant);
            if last {
                break self.maintain_as(&participant);
            }
            ended.push(participant);
        }
    }

    fn maintain_as(&self, participant: &Participant) -> Returned {
        // Removed values first, for they make slots free; then the pages, after their own grace.
        participant.collect();
        let returned = self.trim(&participant.pin());
        participant.collect();
        returned
    }
}

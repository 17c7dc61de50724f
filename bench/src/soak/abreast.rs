//! Soaks of several servers at once: what keeps them in step, so that no one's load falls into another's
//! quiet.
//!
//! Each soak has a [`Seat`]. Before every decision that ends or prolongs the soak, and so before every
//! round, all meet: the slowest is waited for, and what one wishes all do. Who drops its seat, because its
//! server is gone, is waited for no longer.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One soak's place among those that run at once. Dropping it is leaving.
#[derive(Debug)]
pub struct Seat {
    meeting: Arc<Meeting>,
    number: u32,
    of: u32,
}

#[derive(Debug)]
struct Meeting {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug)]
struct State {
    members: u32,
    arrived: u32,
    /// Whether anybody who has arrived wishes to.
    wished: bool,
    /// Meetings that are over, and what the last one came to. Nobody overwrites that before all members
    /// have seen it: the next meeting ends when they have come to it.
    held: u64,
    outcome: bool,
}

impl Seat {
    /// Seats for `of` soaks.
    pub fn row(of: u32) -> Vec<Seat> {
        let state = State { members: of, arrived: 0, wished: false, held: 0, outcome: false };
        let meeting = Arc::new(Meeting { state: Mutex::new(state), bell: Condvar::new() });
        (0..of).map(|number| Seat { meeting: Arc::clone(&meeting), number, of }).collect()
    }

    /// The seat of a soak that runs alone.
    pub fn alone() -> Seat {
        Seat::row(1).remove(0)
    }

    /// How many soaks began at once.
    pub fn of(&self) -> u32 {
        self.of
    }

    /// Waits for all others; true if anybody wishes.
    pub fn anybody(&self, wishes: bool) -> bool {
        let mut state = self.meeting.lock();
        state.wished |= wishes;
        state.arrived += 1;
        if state.arrived == state.members {
            self.meeting.end(&mut state);
            return state.outcome;
        }
        let held = state.held;
        let waited = self.meeting.bell.wait_while(state, |state| state.held == held);
        waited.unwrap_or_else(PoisonError::into_inner).outcome
    }

    /// When in a part of a round of this `length` it is this soak's turn to do what only one may do at a
    /// time. The order moves on from round to round.
    pub fn turn(&self, round: usize, length: Duration) -> Duration {
        let place = (self.number as usize + round) % self.of as usize;
        length * place as u32 / self.of
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.meeting.lock();
        state.members -= 1;
        if state.members > 0 && state.arrived == state.members {
            self.meeting.end(&mut state);
        }
    }
}

impl Meeting {
    fn end(&self, state: &mut State) {
        state.outcome = std::mem::take(&mut state.wished);
        state.arrived = 0;
        state.held += 1;
        self.bell.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn what_one_wishes_all_do_and_they_stay_in_step() {
        let rounds: Vec<usize> = thread::scope(|scope| {
            let soaks: Vec<_> = Seat::row(3)
                .into_iter()
                .enumerate()
                .map(|(id, seat)| {
                    scope.spawn(move || {
                        let mut rounds = 0;
                        // Each alone would stop after another number.
                        while seat.anybody(rounds < 10 * (id + 1)) {
                            rounds += 1;
                        }
                        rounds
                    })
                })
                .collect();
            soaks.into_iter().map(|soak| soak.join().unwrap()).collect()
        });
        assert_eq!(rounds, [30, 30, 30]);
    }

    #[test]
    fn who_leaves_is_not_waited_for() {
        let mut seats = Seat::row(2);
        let (first, second) = (seats.remove(0), seats.remove(0));
        thread::scope(|scope| {
            let waiting = scope.spawn(move || first.anybody(true) && !first.anybody(false));
            drop(second);
            assert!(waiting.join().unwrap());
        });
        assert!(Seat::alone().anybody(true) && !Seat::alone().anybody(false));
    }

    #[test]
    fn turns_do_not_overlap_and_move_on() {
        let seats = Seat::row(3);
        let turns = |round| {
            let of = |seat: &Seat| seat.turn(round, Duration::from_secs(30)).as_secs();
            seats.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!([turns(0), turns(1), turns(2)], [[0, 10, 20], [10, 20, 0], [20, 0, 10]]);
        assert_eq!(Seat::alone().turn(7, Duration::from_secs(30)), Duration::ZERO);
    }
}

//! The accept loop's hand: takes one connection at a time, within the cap.
//!
//! A connection is accepted only when fewer than the cap are open; until then it waits in the
//! listener's backlog, where the system holds it at no cost to the program. So a burst of clients
//! is served late instead of refused.
//!
//! An accept that fails is counted. Errors of the one connection are passed over; every other one,
//! above all that the process has no file descriptor left (EMFILE), is answered by waiting, longer
//! each time, because the listener stays readable and the loop would spin. So is a lack of memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::figures::Open;
use super::site::Site;

const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// A connection, with its place under the cap.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    _place: OwnedSemaphorePermit,
    _open: Open,
}

/// Accepts connections for a site.
pub(super) struct Acceptor {
    listener: TcpListener,
    places: Arc<Semaphore>,
    site: Arc<Site>,
    back_off: BackOff,
    /// A connection that waits for memory.
    waiting: Option<TcpStream>,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, site: Arc<Site>) -> Self {
        let places = site.limits.connections.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(places));
        Self { listener, places, site, back_off: BackOff::default(), waiting: None }
    }

    /// The next connection. Dropping the future loses none, and does not shorten a wait after an
    /// error.
    pub(super) async fn accept(&mut self) -> Accepted {
        loop {
            self.back_off.wait().await;
            let place = Arc::clone(&self.places).acquire_owned().await;
            let place = place.expect("nothing closes the semaphore");
            if self.waiting.is_none() {
                match self.listener.accept().await {
                    Ok((stream, _)) => self.waiting = Some(stream),
                    Err(e) => {
                        self.failed(&e);
                        continue;
                    }
                }
            }
            if !self.site.spare.is_there() {
                self.failed(&io::ErrorKind::OutOfMemory.into());
                continue;
            }
            if let Some(stream) = self.waiting.take() {
                self.back_off = BackOff::default();
                return admit(&self.site, stream, place);
            }
        }
    }

    /// Stops listening, and gives the connections that the system had established already, as far
    /// as there are places.
    pub(super) fn into_waiting(self) -> Vec<Accepted> {
        let Self { listener, places, site, waiting: first, .. } = self;
        // Asks the system itself: Tokio tries only once its driver has reported the listener
        // readable, and the report may be still to come.
        let Ok(listener) = listener.into_std() else { return Vec::new() };
        let mut waiting = Vec::new();
        if let Some(stream) = first
            && let Ok(place) = Arc::clone(&places).try_acquire_owned()
        {
            waiting.push(admit(&site, stream, place));
        }
        while let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let Ok((stream, _)) = listener.accept() else { break };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let Ok(stream) = TcpStream::from_std(stream) else { continue };
            waiting.push(admit(&site, stream, place));
        }
        waiting
    }

    #[cold]
    fn failed(&mut self, e: &io::Error) {
        self.site.figures.count(|n| n.accept_errors += 1);
        if is_of_the_connection(e) {
            return;
        }
        if !self.back_off.is_on() {
            // Once per streak: a log line for each attempt would be a flood.
            tracing::warn!(error = %e, "the admin server cannot accept; it goes on trying");
        }
        self.back_off.longer();
    }
}

fn admit(site: &Site, stream: TcpStream, place: OwnedSemaphorePermit) -> Accepted {
    // Small replies go out at once; a failure costs only latency.
    let _ = stream.set_nodelay(true);
    Accepted { stream, _place: place, _open: site.figures.open() }
}

/// Whether the error says something about the connection that was to be accepted, and nothing about
/// the next.
fn is_of_the_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// The wait after errors: none, then doubling up to a second.
#[derive(Debug, Default)]
struct BackOff {
    /// The last wait, and when it is over.
    last: Option<(Duration, Instant)>,
}

impl BackOff {
    fn is_on(&self) -> bool {
        self.last.is_some()
    }

    fn longer(&mut self) {
        let wait = self.last.map_or(BACK_OFF_MIN, |(wait, _)| (wait * 2).min(BACK_OFF_MAX));
        self.last = Some((wait, Instant::now() + wait));
    }

    async fn wait(&self) {
        if let Some((_, until)) = self.last {
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_second() {
        let mut back_off = BackOff::default();
        assert!(!back_off.is_on());
        let mut waits = Vec::new();
        for _ in 0..9 {
            back_off.longer();
            waits.push(back_off.last.expect("on").0.as_millis());
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn only_errors_of_the_connection_are_passed_over() {
        assert!(is_of_the_connection(&io::ErrorKind::ConnectionAborted.into()));
        // EMFILE and ENFILE have no kind of their own.
        assert!(!is_of_the_connection(&io::Error::from_raw_os_error(24)));
        assert!(!is_of_the_connection(&io::ErrorKind::OutOfMemory.into()));
    }
}

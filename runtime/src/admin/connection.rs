//! One connection: hyper speaks HTTP, a clock beside it ends what takes too long.
//!
//! The clock knows which of three phases the connection is in, and each has its limit:
//!
//! | phase | begins with | limit |
//! |---|---|---|
//! | head | the connection, later the first byte of a request | `header_timeout` |
//! | busy | a complete head | `response_timeout` |
//! | idle | a response handed over whole | `idle_timeout` |
//!
//! A response is handed over when hyper drops its body, all of which it then holds in its buffer; a
//! client that does not read it is in the idle phase and ends with that limit. hyper's own header
//! timeout stays off: it counts the idle time before a request, too, so a limit short enough for
//! slow heads would cut connections between two scrapes.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::accept::Accepted;
use super::route;
use super::site::{Limits, Site};

/// The largest head of a request, in bytes; larger ones are answered with 431.
const MAX_HEAD: usize = 16 << 10;
/// The most headers of a request; more are answered with 431.
const MAX_HEADERS: usize = 64;

/// Runs a connection to its end. When `closing` becomes true it ends after the request it is at.
pub(super) async fn run(
    mut accepted: Accepted,
    site: Arc<Site>,
    mut closing: watch::Receiver<bool>,
) {
    let clock = Clock::new(site.limits);
    let stream = Watched { stream: &mut accepted.stream, clock: clock.clone() };
    let service = service_fn({
        let (site, clock, served) = (Arc::clone(&site), clock.clone(), Cell::new(0));
        move |request| {
            clock.enter(Phase::Busy);
            site.figures.count(|n| n.requests += 1);
            served.set(served.get() + 1);
            let is_last = served.get() >= site.limits.requests;
            let (site, clock) = (Arc::clone(&site), clock.clone());
            async move {
                let mut response = route::respond(&site, &request).await;
                if is_last {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response.map(|body| Reply { body, clock }))
            }
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            // A client that has said all it wants to say still gets its reply.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut closing = pin!(async { closing.wait_for(|closing| *closing).await.is_ok() });
    let mut is_told = false;
    let mut limit = pin!(sleep_until(clock.deadline()));
    let in_time = poll_fn(|cx| {
        let mut end = connection.as_mut().poll(cx);
        // After the poll, not before it: a request that has come in meanwhile is to be answered,
        // and hyper closes a connection that has read nothing yet as soon as it is told.
        if end.is_pending() && !is_told && closing.as_mut().poll(cx).is_ready() {
            is_told = true;
            connection.as_mut().graceful_shutdown();
            end = connection.as_mut().poll(cx);
        }
        if let Poll::Ready(end) = end {
            if let Err(error) = end {
                tracing::debug!(%error, "an admin connection ended badly");
            }
            return Poll::Ready(true);
        }
        // The poll may have changed the phase.
        let deadline = clock.deadline();
        if limit.deadline() != deadline {
            limit.as_mut().reset(deadline);
        }
        limit.as_mut().poll(cx).map(|()| false)
    })
    .await;
    if !in_time {
        site.figures.count(|n| n.timeouts += 1);
    }
}

/// What the connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    Busy,
    Idle,
}

/// The phase of a connection and since when it is in it; shared by the stream, the replies and the
/// limit.
#[derive(Clone)]
struct Clock {
    limits: Limits,
    phase: Arc<Mutex<(Phase, Instant)>>,
}

impl Clock {
    fn new(limits: Limits) -> Self {
        Self { limits, phase: Arc::new(Mutex::new((Phase::Head, Instant::now()))) }
    }

    fn enter(&self, phase: Phase) {
        *self.lock() = (phase, Instant::now());
    }

    /// Bytes came in: after a pause they begin the next head.
    fn bytes_read(&self) {
        let mut phase = self.lock();
        if phase.0 == Phase::Idle {
            *phase = (Phase::Head, Instant::now());
        }
    }

    /// When the phase has lasted too long.
    fn deadline(&self) -> Instant {
        let (phase, since) = *self.lock();
        let limit = match phase {
            Phase::Head => self.limits.header,
            Phase::Busy => self.limits.response,
            Phase::Idle => self.limits.idle,
        };
        // A limit too long for the clock is as good as a year.
        since.checked_add(limit).unwrap_or_else(|| since + Duration::from_secs(365 * 86_400))
    }

    fn lock(&self) -> MutexGuard<'_, (Phase, Instant)> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response's body; dropping it ends the busy phase.
struct Reply {
    body: Full<Bytes>,
    clock: Clock,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.clock.enter(Phase::Idle);
    }
}

/// A stream that tells the clock when bytes come in.
struct Watched<S> {
    stream: S,
    clock: Clock,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.clock.bytes_read();
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

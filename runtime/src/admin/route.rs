//! Which endpoint answers a request: exact paths, GET and HEAD to look, POST for the one that does
//! something, nothing else.
//!
//! A page in a browser can make it POST to a loopback address. Such requests carry an `Origin` or a
//! `Sec-Fetch-Site` header, which no other client sends, and are refused where anything would happen.
//!
//! Endpoints that walk the heap or run code of the program's run on a thread that may block, so
//! that a scrape never holds up a worker.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use super::endpoint;
use super::site::Site;
use crate::runtime::spawn_blocking;

/// An endpoint: its path, what it shows, and how it answers.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) shows: &'static str,
    answer: Answer,
}

/// How an endpoint answers.
enum Answer {
    /// On the worker that serves the connection: must not block.
    Here(fn(&Site) -> Reply),
    /// On a thread that may block.
    Elsewhere(fn(&Site) -> Reply),
    /// The same, for what changes something: POST, and not from a page in a browser.
    Act(fn(&Site) -> Reply),
}

impl Answer {
    fn allows(&self, method: &Method) -> bool {
        match self {
            Self::Act(_) => *method == Method::POST,
            _ => [Method::GET, Method::HEAD].contains(method),
        }
    }

    fn allowed(&self) -> &'static str {
        if matches!(self, Self::Act(_)) { "POST" } else { "GET, HEAD" }
    }
}

/// All endpoints.
pub(super) static ROUTES: [Route; 5] = [
    Route { path: "/", shows: "this page", answer: Answer::Here(|_| endpoint::index::answer()) },
    Route {
        path: "/metrics",
        shows: "every series, as Prometheus text",
        answer: Answer::Elsewhere(endpoint::metrics::answer),
    },
    Route {
        path: "/stats.json",
        shows: "every figure, as JSON",
        answer: Answer::Elsewhere(endpoint::stats::answer),
    },
    Route {
        path: "/healthz",
        shows: "200 while the program is well, 503 and the reasons while it is not",
        answer: Answer::Here(endpoint::healthz::answer),
    },
    Route {
        path: "/purge",
        shows: "POST gives every free page back to the system and reports what could not be reached",
        answer: Answer::Act(endpoint::purge::answer),
    },
];

/// What an endpoint answers.
pub(super) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

impl Reply {
    pub(super) fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type, body: body.into() }
    }

    pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// Answers a request. hyper leaves the body out for HEAD, and keeps its length.
pub(super) async fn respond(
    site: &Arc<Site>,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let Some(route) = ROUTES.iter().find(|r| r.path == request.uri().path()) else {
        return response(Reply::text(StatusCode::NOT_FOUND, "not found; / lists what there is\n"));
    };
    if !route.answer.allows(request.method()) {
        let allowed = route.answer.allowed();
        let reply = Reply::text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed}\n"));
        let mut response = response(reply);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    if matches!(route.answer, Answer::Act(_)) && is_from_a_page(request) {
        return response(Reply::text(StatusCode::FORBIDDEN, "not from a page in a browser\n"));
    }
    if !site.spare.is_there() {
        site.figures.count(|n| n.memory_refusals += 1);
        let reply = Reply::text(StatusCode::SERVICE_UNAVAILABLE, "no memory to spare for this\n");
        let mut response = response(reply);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    }
    let reply = match route.answer {
        Answer::Here(answer) => answer(site),
        Answer::Elsewhere(answer) | Answer::Act(answer) => {
            let site = Arc::clone(site);
            spawn_blocking(move || answer(&site)).await.unwrap_or_else(|error| {
                tracing::error!(%error, path = route.path, "an admin endpoint failed");
                Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "the endpoint failed; see the log\n")
            })
        }
    };
    site.spare.replied(reply.body.len());
    response(reply)
}

fn is_from_a_page(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(ORIGIN) || request.headers().contains_key("sec-fetch-site")
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Figures are of the moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

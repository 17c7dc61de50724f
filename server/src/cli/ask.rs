//! One request to a server's admin address, with limits on its time and on the reply's size.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Method;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest time for the whole exchange.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest reply that is taken.
const LARGEST: usize = 64 << 20;

/// Asks, and returns the body of a reply that says success. The error names the address.
pub(super) fn ask(admin: SocketAddr, method: Method, path: &str) -> Result<Bytes, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = runtime.block_on(async {
        match timeout(PATIENCE, fetch(admin, method, path)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs()).into()),
        }
    });
    body.map_err(|error| format!("http://{admin}{path}: {error}").into())
}

async fn fetch(admin: SocketAddr, method: Method, path: &str) -> Result<Bytes, Box<dyn Error>> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, admin.to_string())
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let reply = async {
        let reply = sender.send_request(request).await?;
        if !reply.status().is_success() {
            return Err(format!("status {}", reply.status()).into());
        }
        let body = Limited::new(reply.into_body(), LARGEST).collect().await;
        Ok::<_, Box<dyn Error>>(body.map_err(|error| error.to_string())?.to_bytes())
    };
    // The connection moves the bytes while the reply is awaited; it ends after it.
    let mut connection = std::pin::pin!(connection);
    let mut reply = std::pin::pin!(reply);
    tokio::select! {
        body = &mut reply => body,
        ended = &mut connection => {
            ended?;
            reply.await
        }
    }
}

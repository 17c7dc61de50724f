//! Where metrics are served: a loopback address or a Unix socket.
//!
//! Owns the setting's grammar and the listener. Addresses other than loopback are refused: whoever
//! wants them reachable puts a proxy with access control in front.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

/// How long a client may take over a read or a write.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait when the system has no descriptor for a connection.
const BREATH: Duration = Duration::from_millis(100);

/// A place, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `127.0.0.1:9600` or `[::1]:9600`.
    Tcp(SocketAddr),
    /// A path with a slash; `%p` stands for the process's number.
    Unix(String),
}

impl Place {
    /// Reads the setting; `None` where it is neither.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return (!path.is_empty()).then(|| Self::Unix(path.to_owned()));
        }
        if text.contains('/') {
            return Some(Self::Unix(text.to_owned()));
        }
        let address: SocketAddr = text.parse().ok()?;
        address.ip().is_loopback().then_some(Self::Tcp(address))
    }

    /// Whether every process gets one of its own.
    pub(crate) fn is_per_process(&self) -> bool {
        matches!(self, Self::Unix(path) if path.contains("%p"))
    }

    /// Opens the listener; with the file to remove in the end, if it made one.
    pub(crate) fn open(&self) -> io::Result<(Listener, Option<PathBuf>)> {
        match self {
            Self::Tcp(address) => Ok((Listener::Tcp(TcpListener::bind(address)?), None)),
            Self::Unix(path) => {
                let path = PathBuf::from(path.replace("%p", &std::process::id().to_string()));
                let listener = match UnixListener::bind(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                        // Left behind by a process that was killed: nobody answers there.
                        let socket = path.symlink_metadata()?.file_type().is_socket();
                        if !socket || UnixStream::connect(&path).is_ok() {
                            return Err(error);
                        }
                        std::fs::remove_file(&path)?;
                        UnixListener::bind(&path)?
                    }
                    other => other?,
                };
                Ok((Listener::Unix(listener), Some(path)))
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

/// An open place.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection.
pub(crate) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Listener {
    pub(crate) fn raw(&self) -> RawFd {
        match self {
            Self::Tcp(listener) => listener.as_raw_fd(),
            Self::Unix(listener) => listener.as_raw_fd(),
        }
    }

    /// Waits for a client and hands its connection, with time limits, to `answer`.
    pub(crate) fn answer_one(&self, answer: impl FnOnce(&mut dyn Stream) -> io::Result<()>) {
        let done = match self {
            Self::Tcp(listener) => listener.accept().and_then(|(mut stream, _)| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                // What goes wrong with one client concerns that client only.
                let _ = answer(&mut stream);
                Ok(())
            }),
            Self::Unix(listener) => listener.accept().and_then(|(mut stream, _)| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                let _ = answer(&mut stream);
                Ok(())
            }),
        };
        if done.is_err() {
            std::thread::sleep(BREATH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_and_paths_are_places_and_nothing_else_is() {
        assert!(matches!(Place::parse("127.0.0.1:9600"), Some(Place::Tcp(_))));
        assert!(matches!(Place::parse("[::1]:0"), Some(Place::Tcp(_))));
        let path = |text: &str| Some(Place::Unix(text.to_owned()));
        assert_eq!(Place::parse("/run/x.sock"), path("/run/x.sock"));
        assert_eq!(Place::parse("./x"), path("./x"));
        assert_eq!(Place::parse("unix:x"), path("x"));
        for wrong in ["", "9600", "0.0.0.0:9600", "10.0.0.1:80", "localhost", "unix:"] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
        assert!(Place::parse("/x.%p").is_some_and(|place| place.is_per_process()));
        assert!(Place::parse("/x").is_some_and(|place| !place.is_per_process()));
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let path = std::env::temp_dir().join(format!("flagstone-place-{}", std::process::id()));
        let place = Place::Unix(path.to_str().expect("UTF-8").to_owned());
        let (first, file) = place.open().expect("free");
        assert_eq!(file.as_deref(), Some(path.as_path()));
        assert!(place.open().is_err(), "somebody answers there");
        drop(first);
        let (second, _) = place.open().expect("nobody answers any more");
        drop(second);
        std::fs::remove_file(&path).expect("the socket's file");
        std::fs::write(&path, "precious").expect("written");
        assert!(place.open().is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("kept"), "precious");
        std::fs::remove_file(&path).expect("removed");
    }
}

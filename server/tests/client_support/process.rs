//! Child processes whose output is read while they run, and which never outlive their value.

use super::poll;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A program that goes on beside the test. Dropping it kills and reaps it.
pub struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

/// Lines that a thread has read so far from one of the child's streams.
type Lines = Arc<Mutex<Vec<String>>>;

impl Running {
    /// Starts the program without standard input.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            collect_lines(child.stdout.take().unwrap(), &stdout),
            collect_lines(child.stderr.take().unwrap(), &stderr),
        ];
        Self { child, stdout, stderr, readers }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lines of standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    /// Lines of standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end and for the last of its output.
    pub fn wait(&mut self) -> ExitStatus {
        let status = poll("the end of a process", || self.ended());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
    }

    /// Everything that it printed, for a failure's message.
    pub fn transcript(&self) -> String {
        format!("stdout: {:#?}\nstderr: {:#?}", self.stdout(), self.stderr())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("process {} printed\n{}", self.id(), self.transcript());
        }
    }
}

/// Runs a program to its end, with `input` as its standard input.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A program that ends without reading its input closes the pipe.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Asks a process to end, as a service manager does.
pub fn signal_terminate(id: u32) {
    let status = Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().unwrap();
    assert!(status.success(), "kill -TERM {id}: {status}");
}

fn collect_lines(stream: impl Read + Send + 'static, lines: &Lines) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { return };
            lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
    })
}

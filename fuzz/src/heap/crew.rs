//! The threads of a script, one of which works at a time.
//!
//! Owns the threads and their channels. A thread lives until a step ends it, and what it has of the heap
//! (shard, guards, gathered frees) with it; the next step for it starts another in its place.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use super::model::Model;
use super::{Deed, THREADS};

/// Rounds of settling: what a batch of one thread brings to another's inbox goes on from there.
const ROUNDS: usize = 3;

pub(super) struct Crew<'scope, 'env: 'scope, 'h> {
    scope: &'scope Scope<'scope, 'env>,
    model: &'env Mutex<Model<'h>>,
    threads: Vec<Option<Worker<'scope>>>,
}

struct Worker<'scope> {
    deeds: SyncSender<Deed>,
    done: Receiver<()>,
    thread: ScopedJoinHandle<'scope, ()>,
}

impl<'scope, 'env, 'h: 'env> Crew<'scope, 'env, 'h> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, model: &'env Mutex<Model<'h>>) -> Self {
        Self { scope, model, threads: (0..THREADS).map(|_| None).collect() }
    }

    /// Has a thread do something and waits until it is done.
    pub(super) fn run(&mut self, thread: usize, deed: Deed) {
        if let Deed::Exit = deed {
            self.exit(thread);
            return;
        }
        let (scope, model) = (self.scope, self.model);
        let worker = self.threads[thread].get_or_insert_with(|| {
            let (deeds, todo) = sync_channel(1);
            let (tell, done) = sync_channel(1);
            let work = move || {
                for deed in todo {
                    lock(model).run(thread, deed);
                    if tell.send(()).is_err() {
                        return;
                    }
                }
            };
            Worker { deeds, done, thread: scope.spawn(work) }
        });
        let done = worker.deeds.send(deed).is_ok() && worker.done.recv().is_ok();
        assert!(done, "thread {thread} panicked over {deed:?}");
    }

    /// Ends a thread.
    fn exit(&mut self, thread: usize) {
        if let Some(Worker { deeds, done, thread: handle }) = self.threads[thread].take() {
            lock(self.model).before_exit(thread);
            drop((deeds, done));
            assert!(handle.join().is_ok(), "thread {thread} panicked as it ended");
        }
    }

    /// Brings everything home that is on its way, and holds the heap's books against the model.
    pub(super) fn settle(&mut self) {
        for thread in 0..usize::from(THREADS) {
            while lock(self.model).guards(thread) > 0 {
                self.run(thread, Deed::Leave);
            }
        }
        for _ in 0..ROUNDS {
            for thread in 0..usize::from(THREADS) {
                if self.threads[thread].is_some() {
                    self.run(thread, Deed::Collect);
                    self.run(thread, Deed::Flush);
                    self.run(thread, Deed::Park);
                }
            }
            lock(self.model).collect();
        }
        lock(self.model).check_books();
    }

    /// Ends all threads.
    pub(super) fn end(&mut self) {
        (0..usize::from(THREADS)).for_each(|thread| self.exit(thread));
    }
}

fn lock<'a, 'h>(model: &'a Mutex<Model<'h>>) -> MutexGuard<'a, Model<'h>> {
    // After a panic the script is over: its message is what counts.
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

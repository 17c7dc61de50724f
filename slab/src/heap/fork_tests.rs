//! Forked children of threaded processes, with the global heap and with instances.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::super::{Flagstone, Heap, OwnedHeap};
use crate::port::{Backing, FixedRegion};
use crate::shard::lease::LeaseWord;

const LAYOUTS: [Layout; 3] = [layout(48), layout(700), layout(600_000)];

const fn layout(bytes: usize) -> Layout {
    match Layout::from_size_align(bytes, 8) {
        Ok(layout) => layout,
        Err(_) => panic!("no layout"),
    }
}

/// Runs `f` in a forked child and returns its exit status, as `wait` gives it: zero if `f` gives zero.
#[must_use]
fn in_child(f: impl FnOnce() -> u8) -> i32 {
    // SAFETY: the child calls only the allocator and `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // A child that hangs is a failure too.
        // SAFETY: asks for a signal; `_exit` ends the child without the test harness's handlers.
        unsafe {
            libc::alarm(120);
            libc::_exit(f().into());
        }
    }
    let mut status = -1;
    // SAFETY: `status` is a valid place; without a child it stays as it is.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    status
}

/// The child of a process whose other threads are busy allocating can allocate, and free what
/// those threads had; the parent goes on.
#[test]
fn the_child_of_a_busy_process_allocates_and_frees() {
    const BLOCKS: usize = 5000;
    let layout = layout(72);
    // SAFETY: blocks are freed once per process, by whoever got them.
    let allocate = move || unsafe { Flagstone.alloc(layout) as usize };
    let (send, receive) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        let blocks: Vec<usize> = (0..BLOCKS).map(|_| allocate()).collect();
        send.send(blocks).expect("the test waits");
        while let Err(mpsc::TryRecvError::Empty) = stopped.try_recv() {
            let churn: Vec<usize> = (0..100).map(|_| allocate()).collect();
            // SAFETY: allocated just now.
            churn.iter().for_each(|&b| unsafe { Flagstone.dealloc(b as *mut u8, layout) });
        }
    });
    let blocks = receive.recv().expect("the worker sends");
    for _ in 0..20 {
        let status = in_child(|| {
            let mut seen = 0usize;
            for &block in &blocks {
                // SAFETY: the child's copy of the block is the child's.
                unsafe { Flagstone.dealloc(block as *mut u8, layout) };
            }
            for _ in 0..2 * BLOCKS {
                let block = allocate();
                if block == 0 {
                    break;
                }
                // SAFETY: allocated just now.
                unsafe { (block as *mut u8).write_bytes(3, 72) };
                seen += 1;
            }
            u8::from(seen != 2 * BLOCKS)
        });
        assert_eq!(status, 0);
    }
    drop(stop);
    worker.join().expect("the worker ends");
    // SAFETY: the parent's blocks, freed once here.
    blocks.iter().for_each(|&b| unsafe { Flagstone.dealloc(b as *mut u8, layout) });
}

fn filled<B: Backing>(heap: &OwnedHeap<B>, layout: Layout, count: usize) -> Vec<NonNull<u8>> {
    let blocks = (0..count).map_while(|_| heap.try_alloc(layout).ok());
    // SAFETY: handed out just now.
    blocks.inspect(|block| unsafe { block.write_bytes(5, 48) }).collect()
}

fn free<B: Backing>(heap: &OwnedHeap<B>, blocks: &[NonNull<u8>], layout: Layout) {
    // SAFETY: the callers give each block up once.
    blocks.iter().for_each(|&block| unsafe { heap.dealloc(block, layout) });
}

/// A thread with blocks of a heap, for others to free in the child.
struct Lent(Vec<NonNull<u8>>);

// SAFETY: blocks may be used and freed by any thread.
unsafe impl Send for Lent {}

/// What the child does with its copy of a heap whose workers are not there: `lent` are their blocks,
/// `own` the forking thread's. It ends the heap, too. Gives the number of the first thing that is wrong,
/// or zero.
fn child_uses<B: Backing + 'static>(heap: &OwnedHeap<B>, lent: &Lent, own: &[NonNull<u8>]) -> u8 {
    let mine = super::leases::leased(heap);
    for shard in heap.shards.iter() {
        let word = shard.lease.word();
        let mine = mine.is_some_and(|mine| ptr::eq(mine, shard));
        if !mine && word != LeaseWord::ORPHANED && word != LeaseWord::IDLE {
            return 1;
        }
    }
    // SAFETY: the child's copies of blocks in use.
    let whole = lent.0.iter().chain(own).all(|block| unsafe { block.read() } == 5);
    free(heap, &lent.0, LAYOUTS[0]);
    free(heap, own, LAYOUTS[1]);
    crate::thread::flush();
    let again = filled(heap, LAYOUTS[0], 3 * lent.0.len());
    let reused = again.iter().any(|block| lent.0.contains(block));
    let large = filled(heap, LAYOUTS[2], 5).len();
    let another = Heap::builder().name("child's").build().expect("a number is left");
    let of_another = filled(&another, LAYOUTS[0], 100).len();
    drop(another);
    // SAFETY: the child's copy of the heap, which it does not use again.
    drop(unsafe { ptr::read(heap) });
    let right = [whole, reused, again.len() == 3 * lent.0.len(), large == 5, of_another == 100];
    right.iter().position(|right| !right).map_or(0, |number| number as u8 + 2)
}

/// Busy workers at whatever they happen to do when the process forks, the making and ending of other
/// instances included.
fn over_forks<B: Backing + 'static>(heap: OwnedHeap<B>) {
    let (send, receive) = mpsc::channel();
    let stop = Mutex::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            let (send, stop, heap) = (send.clone(), &stop, &heap);
            scope.spawn(move || {
                send.send(Lent(filled(heap, LAYOUTS[0], 700))).expect("the test waits");
                while !*stop.lock().expect("not poisoned") {
                    for layout in LAYOUTS {
                        free(heap, &filled(heap, layout, 10), layout);
                    }
                    drop(Heap::builder().name("brief").build());
                }
            });
        }
        let mut lent = Lent(Vec::new());
        (0..2).for_each(|_| lent.0.extend(receive.recv().expect("sent").0));
        let own = filled(&heap, LAYOUTS[1], 50);
        let statuses = [(); 8].map(|()| in_child(|| child_uses(&heap, &lent, &own)));
        *stop.lock().expect("not poisoned") = true;
        assert_eq!(statuses, [0; 8]);
        free(&heap, &lent.0, LAYOUTS[0]);
        free(&heap, &own, LAYOUTS[1]);
    });
    crate::thread::flush();
    // A scope does not wait until its threads have given their shards back.
    let deadline = Instant::now() + Duration::from_secs(60);
    while heap.live_bytes() != 0 && Instant::now() < deadline {
        heap.purge();
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(heap.live_bytes(), 0, "the parent goes on as if nothing had been");
}

fn in_a_region() -> OwnedHeap<FixedRegion> {
    // Named here, so that a leak checker sees that the buffers are meant to stay.
    static BUFFERS: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let buffer = Box::leak(Box::new_uninit_slice(40 << 20));
    BUFFERS.lock().expect("not poisoned").push(buffer.as_ptr().expose_provenance());
    Heap::builder().name("region").backing(FixedRegion::new(buffer)).build().expect("built")
}

#[test]
fn instances_over_pages_go_on_in_the_child() {
    over_forks(Heap::builder().name("pages").build().expect("built"));
}

#[test]
fn instances_over_a_region_go_on_in_the_child() {
    over_forks(in_a_region());
}

/// Forks while a worker is in the middle of something, which it says and then stays in for a moment.
fn while_in<B: Backing + 'static>(
    heap: &OwnedHeap<B>,
    middle: impl FnOnce(&OwnedHeap<B>, &dyn Fn()) + Send,
) {
    let (lend, lent): (Sender<Lent>, Receiver<Lent>) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let (done, wait) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            lend.send(Lent(filled(heap, LAYOUTS[0], 200))).expect("the test waits");
            middle(heap, &|| {
                tell.send(()).expect("the test waits");
                // Whether the fork falls into this or comes after, the child is well; without what this
                // file is about it hangs if the fork falls into it, as it all but surely does.
                thread::sleep(Duration::from_millis(100));
            });
            let _ = wait.recv();
        });
        let lent = lent.recv().expect("sent");
        let own = filled(heap, LAYOUTS[1], 10);
        told.recv().expect("told");
        assert_eq!(in_child(|| child_uses(heap, &lent, &own)), 0);
        free(heap, &lent.0, LAYOUTS[0]);
        free(heap, &own, LAYOUTS[1]);
        drop(done);
    });
}

#[test]
fn a_lock_that_another_thread_has_is_free_in_the_child() {
    let heap = Heap::builder().name("locked").build().expect("built");
    while_in(&heap, |heap, middle| {
        let _held = heap.fallback.hold(&heap.threshold);
        middle();
    });
    while_in(&heap, |heap, middle| {
        let _held = heap.pool.hold(&heap.threshold);
        middle();
    });
}

#[test]
fn a_backing_that_another_thread_is_in_is_free_in_the_child() {
    while_in(&in_a_region(), |heap, middle| {
        heap.backing().before_fork();
        middle();
        // SAFETY: taken above by this thread.
        unsafe { heap.backing().after_fork() };
    });
}

#[test]
fn a_heap_that_another_thread_visits_can_end_in_the_child() {
    let heap = Heap::builder().name("visited").build().expect("built");
    while_in(&heap, |_, middle| {
        Heap::for_each(|heap| {
            if heap.name() == "visited" {
                middle();
            }
        });
    });
}

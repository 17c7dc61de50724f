//! The inbox: what is posted is taken once, with everything its poster wrote.
//!
//! The real [`Inbox`] over nodes whose cells loom watches: two posters against an owner that takes
//! twice while they post and once more when they are done (post against post against drain). One
//! of the posts is a list of two.
//!
//! control: inbox_post: Causality violation
//! control: inbox_take: Causality violation
#![cfg(flagstone_loom)]

use flagstone_loom_tests::{Crossing, model, spawn};
use flagstone_slab::model::{Inbox, Post};
use loom::cell::UnsafeCell;
use loom::sync::Arc;

struct Node {
    next: UnsafeCell<*mut Node>,
    contents: UnsafeCell<u32>,
}

impl Post for Node {
    unsafe fn set_next(node: *mut Self, next: *mut Self) {
        // SAFETY: the poster has exclusive use of the node; loom checks that it does.
        unsafe { (*node).next.with_mut(|to| *to = next) };
    }
}

struct World {
    /// The owner's first look at the inbox is a load that loom alone would not try after a post.
    crossing: Crossing,
    inbox: Inbox<Node>,
    nodes: [Node; 4],
}

// SAFETY: the inbox hands the nodes over; loom checks every access to their cells.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn make(&self, at: usize) -> *mut Node {
        let node = &self.nodes[at];
        // SAFETY: until it is posted the node is its poster's.
        node.contents.with_mut(|contents| unsafe { *contents = at as u32 + 1 });
        std::ptr::from_ref(node).cast_mut()
    }

    /// Posts nodes at once, linked in this order.
    fn post(&self, nodes: &[usize]) {
        let made: Vec<*mut Node> = nodes.iter().map(|&at| self.make(at)).collect();
        // SAFETY: until they are posted the nodes are their poster's; the world outlives the inbox's
        // use of them.
        unsafe {
            for pair in made.windows(2) {
                Node::set_next(pair[0], pair[1]);
            }
            self.inbox.post(made[0], made[made.len() - 1]);
        }
        self.crossing.pass();
    }

    /// Takes what is there and marks it in `seen`.
    fn drain(&self, seen: &mut [bool; 4]) {
        self.crossing.look();
        let mut node = self.inbox.take();
        // SAFETY: what was taken is the owner's; loom checks that the posters are done with it.
        while let Some(taken) = unsafe { node.as_ref() } {
            // SAFETY: as above.
            let contents = taken.contents.with(|contents| unsafe { *contents });
            let at = contents as usize - 1;
            assert!(std::ptr::eq(taken, &self.nodes[at]), "the poster's writes come along");
            assert!(!seen[at], "a node was taken twice");
            seen[at] = true;
            // SAFETY: as above.
            node = taken.next.with(|next| unsafe { *next });
        }
    }
}

#[test]
fn nothing_is_lost_and_nothing_is_taken_twice() {
    model("slab_inbox", || {
        let node =
            || Node { next: UnsafeCell::new(std::ptr::null_mut()), contents: UnsafeCell::new(0) };
        let world = Arc::new(World {
            crossing: Crossing::new(),
            inbox: Inbox::new(),
            nodes: [node(), node(), node(), node()],
        });
        let first = spawn({
            let world = world.clone();
            move || {
                world.post(&[0]);
                world.post(&[1, 3]);
            }
        });
        let second = spawn({
            let world = world.clone();
            move || world.post(&[2])
        });
        let mut seen = [false; 4];
        world.drain(&mut seen);
        let early = seen.contains(&true);
        world.drain(&mut seen);
        first.join().unwrap();
        second.join().unwrap();
        world.drain(&mut seen);
        assert_eq!(seen, [true; 4], "a posted node was lost");
        early
    });
}

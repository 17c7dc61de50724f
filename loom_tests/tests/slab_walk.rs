//! Walking the list of segments while one of them is taken out and given back.
//!
//! The real [`WalkList`] over nodes whose cells loom watches: a walker reads every node that it finds; the
//! other thread takes the second of two nodes out and, if nobody can be at it, writes to it as unmapping
//! would. Otherwise it waits for the last walker to say so.
//!
//! control: walk_no_fence: Causality violation
//! control: walk_not_asked: Causality violation
#![cfg(flagstone_loom)]

use flagstone_loom_tests::{model, spawn};
use flagstone_slab::model::{WalkLinks, WalkList, Walked};
use loom::cell::UnsafeCell;
use loom::sync::Arc;

struct Node {
    links: WalkLinks<Node>,
    mapped: UnsafeCell<bool>,
}

impl Walked for Node {
    fn links(&self) -> &WalkLinks<Self> {
        &self.links
    }
}

struct World {
    list: WalkList<Node>,
    nodes: [Node; 2],
}

// SAFETY: the list's protocol is what is tested; loom checks every access to the nodes' cells, and
// `prev` is the one writer's.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

fn node() -> Node {
    Node { links: WalkLinks::new(), mapped: UnsafeCell::new(true) }
}

#[test]
fn no_walker_is_at_a_node_that_is_given_back() {
    model("slab_walk", || {
        let world = Arc::new(World { list: WalkList::new(), nodes: [node(), node()] });
        // SAFETY: one writer; the nodes live as long as the list.
        world.nodes.iter().for_each(|node| unsafe { world.list.insert(node) });
        let walker = {
            let world = Arc::clone(&world);
            spawn(move || {
                let mut seen = 0;
                world.list.walk(|node| {
                    // SAFETY: the claim under test: it is not given back while a walker is at it.
                    node.mapped.with(|mapped| assert!(unsafe { *mapped }, "given back"));
                    seen += 1;
                });
                seen
            })
        };
        let gone = &world.nodes[0];
        // SAFETY: one writer, and the node is in the list.
        unsafe { world.list.remove(gone) };
        let unwalked = world.list.is_unwalked();
        if unwalked {
            // SAFETY: the claim under test.
            gone.mapped.with_mut(|mapped| unsafe { *mapped = false });
        }
        let seen = walker.join().unwrap();
        if !unwalked {
            assert!(world.list.is_unwalked(), "the walker has left");
            // SAFETY: as above.
            gone.mapped.with_mut(|mapped| unsafe { *mapped = false });
        }
        assert!((1..=2).contains(&seen), "{seen} of 2 nodes");
        // The case that matters: it was given back while the walk may have gone on.
        unwalked
    });
}

//! Any heap under any sequence of operations on several threads does as the model says: no two live
//! blocks overlap, each is aligned, keeps its contents over every resize, starts as zeros when asked
//! for; what guards keep is not handed out; the books are exact.

use flagstone_fuzz::heap::{Align, Deed, Script, Shards, Size, Source, Step, THREADS, Table};
use proptest::prelude::*;

fn table() -> impl Strategy<Value = Table> {
    prop_oneof![
        1 => Just(Table::Standard),
        1 => Just(Table::SmallPool),
        1 => Just(Table::SmallObjects),
        3 => prop::collection::vec(2u16..64, 1..12).prop_map(Table::Words),
        3 => prop::collection::vec(any::<u16>(), 1..60).prop_map(Table::Words),
        1 => prop::collection::vec(0u32..600_000, 0..4).prop_map(Table::Bytes),
    ]
}

fn shards() -> impl Strategy<Value = Shards> {
    prop_oneof![
        3 => Just(Shards::OnDemand),
        1 => (0u8..5).prop_map(Shards::UpTo),
        2 => (0u8..5).prop_map(Shards::Fixed),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let size = || any::<u32>().prop_map(Size);
    let align = || any::<u8>().prop_map(Align);
    prop_oneof![
        20 => (size(), align(), any::<bool>())
            .prop_map(|(size, align, zeroed)| Deed::Alloc { size, align, zeroed }),
        4 => (size(), any::<u8>()).prop_map(|(size, count)| Deed::AllocMany { size, count }),
        10 => (any::<u16>(), size(), align())
            .prop_map(|(which, size, align)| Deed::Resize { which, size, align }),
        10 => any::<u16>().prop_map(|which| Deed::Free { which }),
        5 => (any::<u16>(), any::<u8>()).prop_map(|(which, count)| Deed::FreeMany { which, count }),
        3 => any::<u16>().prop_map(|which| Deed::Retire { which }),
        2 => any::<u16>().prop_map(|which| Deed::Check { which }),
        2 => Just(Deed::Enter),
        2 => Just(Deed::Leave),
        1 => Just(Deed::Advance),
        1 => Just(Deed::Collect),
        2 => Just(Deed::Park),
        1 => Just(Deed::GiveBack),
        1 => Just(Deed::Flush),
        1 => Just(Deed::Scavenge),
        1 => Just(Deed::Purge),
        1 => Just(Deed::Snapshot),
        1 => Just(Deed::Exit),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let step = (0..THREADS, deed()).prop_map(|(thread, deed)| Step { thread, deed });
    let source = prop_oneof![
        4 => Just(Source::Pages),
        1 => Just(Source::System),
        1 => Just(Source::Region),
    ];
    (
        table(),
        shards(),
        source,
        prop::option::weighted(0.2, 1u8..60),
        prop::option::weighted(0.2, 4u8..40),
        prop::bool::weighted(0.3),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::collection::vec(step, 1..200),
    )
        .prop_map(
            |(table, shards, source, fails_from, cap, retires, no_decay, leaves_blocks, steps)| {
                Script {
                    table,
                    shards,
                    source,
                    fails_from,
                    cap,
                    retires,
                    no_decay,
                    leaves_blocks,
                    steps,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    // requirement: D2, D3, D4, D5, D6
    #[test]
    fn several_threads_do_as_the_model_says(script in script()) {
        script.run();
    }
}

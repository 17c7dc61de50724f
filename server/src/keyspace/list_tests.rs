//! Tests of lists: against a deque, what readers of a moment see meanwhile, and what popped elements keep.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn texts(items: impl IntoIterator<Item = usize>) -> Vec<Element> {
    items.into_iter().map(|i| i.to_string().into_bytes().into()).collect()
}

fn of(end: End, mut elements: Vec<Element>) -> Option<List> {
    List::try_of(end, &mut elements).unwrap()
}

fn push(list: List, end: End, mut elements: Vec<Element>) -> List {
    pushed(&list, end, &mut elements).unwrap_or(list)
}

/// The list that takes the place of this one, if another is needed. Either way the elements are taken.
fn pushed(list: &List, end: End, elements: &mut [Element]) -> Option<List> {
    let other = (!list.push(end, elements)).then(|| list.try_extended(end, elements).unwrap());
    assert!(elements.iter().all(|element| element.is_empty()));
    other
}

fn list(n: usize) -> List {
    (1..n).fold(of(End::Right, texts([0])).unwrap(), |list, i| push(list, End::Right, texts([i])))
}

fn contents(view: View<'_>) -> Vec<Vec<u8>> {
    view.range(0..view.len()).map(<[u8]>::to_vec).collect()
}

#[test]
fn positions_clip_to_the_list() {
    let list = list(3);
    let view = list.view();
    assert_eq!(view.positions(0, -1), 0..3);
    assert_eq!(view.positions(-2, -1), 1..3);
    assert_eq!(view.positions(-100, 1), 0..2);
    assert_eq!(view.positions(1, 100), 1..3);
    assert_eq!(view.positions(3, 5), 0..0);
    assert_eq!(view.positions(2, 1), 0..0);
    assert_eq!(view.positions(0, -4), 0..0);
    assert_eq!(view.positions(i64::MIN, i64::MAX), 0..3);
    assert_eq!(view.get(0), Some(b"0".as_slice()));
    assert_eq!(view.get(-1), Some(b"2".as_slice()));
    assert_eq!(view.get(3), None);
    assert_eq!(view.get(-4), None);
    assert_eq!(view.get(i64::MIN), None);
    assert!(of(End::Left, Vec::new()).is_none());
}

#[test]
fn an_emptied_list_gives_its_memory_back() {
    let mut list = list(100_000);
    let full = list.heap_bytes();
    while list.view().len() > 10 {
        match list.try_pop(End::Left, 1).unwrap() {
            Left::Same => {}
            Left::Other(other) => list = other,
            Left::Nothing => unreachable!("more than ten were there"),
        }
    }
    // What is left is in one chunk, with the popped ones before them.
    assert!(list.heap_bytes() < full / 50, "{} of {full}", list.heap_bytes());
    assert_eq!(list.view().get(0), Some(b"99990".as_slice()));
    assert_eq!(list.view().get(-1), Some(b"99999".as_slice()));
}

/// A stack of large elements, pushed and popped at the same place over and over, between few small ones.
#[test]
fn popped_elements_do_not_pile_up() {
    for end in [End::Left, End::Right] {
        let mut list = of(End::Right, texts(0..3)).unwrap();
        for size in [10, 1000, 100_000] {
            for _ in 0..1000 {
                list = push(list, end, vec![vec![b'x'; size].into()]);
                if let Left::Other(other) = list.try_pop(end, 1).unwrap() {
                    list = other;
                }
            }
            // One kept live element per cycle, with whatever its chunk has beside it.
            for _ in 0..50 {
                let many = vec![Element::from(vec![b'y'; size]); 20];
                list = push(list, end, many);
                if let Left::Other(other) = list.try_pop(end, 19).unwrap() {
                    list = other;
                }
            }
            let live: usize = list.view().range(0..list.view().len()).map(<[u8]>::len).sum();
            let held = list.heap_bytes();
            assert!(held < 4 * live + 60_000 + 30 * size, "{held} for {live}, {size}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(bool, usize, usize),
    Pop(bool, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any::<bool>(), 1usize..5, 0usize..60).prop_map(|(l, n, s)| Step::Push(l, n, s)),
        (any::<bool>(), 1usize..3, 1000usize..6000).prop_map(|(l, n, s)| Step::Push(l, n, s)),
        (any::<bool>(), 1usize..6).prop_map(|(l, n)| Step::Pop(l, n)),
        (any::<bool>(), 1usize..40).prop_map(|(l, n)| Step::Pop(l, n)),
    ]
}

/// A list, its bounds at some moment, and what it held then.
type Moment = (Arc<List>, (u32, u32), Vec<Vec<u8>>);

proptest! {
    /// Against a deque; and every moment's view still shows that moment when all is done.
    #[test]
    fn a_list_is_a_deque_and_a_view_a_moment(steps in prop::collection::vec(step(), 1..150)) {
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        let mut list: Option<Arc<List>> = None;
        let mut moments: Vec<Moment> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(left, count, size) => {
                    let end = if left { End::Left } else { End::Right };
                    let elements: Vec<Vec<u8>> = (0..count)
                        .map(|i| { let mut e = vec![b'x'; size]; e.extend(format!("{number}.{i}").bytes()); e })
                        .collect();
                    for element in &elements {
                        match end {
                            End::Left => model.push_front(element.clone()),
                            End::Right => model.push_back(element.clone()),
                        }
                    }
                    let mut elements: Vec<Element> =
                        elements.into_iter().map(Element::from).collect();
                    let other = match &list {
                        Some(list) => pushed(list, end, &mut elements),
                        None => of(end, elements),
                    };
                    list = other.map(Arc::new).or(list);
                }
                Step::Pop(left, count) => {
                    let Some(now) = list.clone() else { continue };
                    let end = if left { End::Left } else { End::Right };
                    let outermost = now.view().try_outermost(end, count).unwrap();
                    let popped: Vec<Vec<u8>> =
                        outermost.into_iter().map(<[u8]>::to_vec).collect();
                    let wanted: Vec<Vec<u8>> = (0..count.min(model.len()))
                        .filter_map(|_| match end {
                            End::Left => model.pop_front(),
                            End::Right => model.pop_back(),
                        })
                        .collect();
                    prop_assert_eq!(popped, wanted);
                    list = match now.try_pop(end, count).unwrap() {
                        Left::Same => Some(now),
                        Left::Other(other) => Some(Arc::new(other)),
                        Left::Nothing => None,
                    };
                }
            }
            let seen = list.as_ref().map(|list| contents(list.view())).unwrap_or_default();
            prop_assert_eq!(&seen, &Vec::from(model.clone()));
            if let Some(list) = &list {
                let view = list.view();
                prop_assert!(list.pieces.iter().enumerate().all(|(at, _)| !view.range_of(at).is_empty()));
                let bytes: u64 = list.pieces.iter().map(|piece| piece.chunk.bytes.get()).sum();
                prop_assert_eq!(list.element_bytes.get(), bytes);
                moments.push((Arc::clone(list), (view.low, view.high), seen));
            }
        }
        for (list, (low, high), seen) in &moments {
            let view = View { list, low: *low, high: *high };
            prop_assert_eq!(&contents(view), seen);
        }
    }
}

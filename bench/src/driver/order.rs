//! Who runs when: every round runs every cell under every contender, in an order that rotates.
//!
//! Interleaving spreads slow drifts of the machine (frequency, neighbours, page cache) over all
//! contenders alike; rotating takes away what it means to run first, or after a given neighbour.

/// The contenders' order for one cell in one round: a rotation, reversed every other round, so
/// that over the rounds each runs at each place and after each neighbour on both sides.
pub fn order(contenders: usize, cell: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contenders).collect();
    if contenders > 0 {
        order.rotate_left((cell + round) % contenders);
        if round % 2 == 1 {
            order.reverse();
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn every_contender_runs_once() {
        for round in 0..12 {
            let mut order = order(9, 5, round);
            order.sort_unstable();
            assert_eq!(order, (0..9).collect::<Vec<_>>());
        }
        assert!(order(0, 1, 1).is_empty());
    }

    #[test]
    fn over_as_many_rounds_as_contenders_each_is_first_and_last() {
        let firsts: std::collections::HashSet<_> = (0..10).map(|r| order(5, 0, r)[0]).collect();
        let lasts: std::collections::HashSet<_> = (0..10).map(|r| order(5, 0, r)[4]).collect();
        assert_eq!((firsts.len(), lasts.len()), (5, 5));
    }

    #[test]
    fn the_order_differs_from_round_to_round_and_cell_to_cell() {
        assert_ne!(order(4, 0, 0), order(4, 0, 1));
        assert_ne!(order(4, 0, 0), order(4, 1, 0));
    }
}

//! The order of loading, over graphs that look random.

use hot_patch_core::analysis::{components, is_cycle};

use crate::support::random::Random;

/// A graph without cycles: each vertex leads only to those before it in a hidden order.
fn acyclic(random: &mut Random, size: usize) -> Vec<Vec<usize>> {
    let mut hidden: Vec<usize> = (0..size).collect();
    for place in (1..size).rev() {
        hidden.swap(place, random.below(place + 1));
    }
    let mut edges = vec![Vec::new(); size];
    for _ in 0..random.below(size * 3 + 1) {
        let (one, other) = (random.below(size), random.below(size));
        if one != other {
            edges[hidden[one.max(other)]].push(hidden[one.min(other)]);
        }
    }
    edges
}

/// Whether one vertex can be reached from another, found out the slow way.
fn reaches(edges: &[Vec<usize>]) -> Vec<Vec<bool>> {
    let size = edges.len();
    let mut reach = vec![vec![false; size]; size];
    for (from, to) in edges.iter().enumerate() {
        to.iter().for_each(|to| reach[from][*to] = true);
    }
    for by in 0..size {
        for from in 0..size {
            if reach[from][by] {
                let beyond = reach[by].clone();
                beyond.iter().enumerate().for_each(|(to, there)| reach[from][to] |= there);
            }
        }
    }
    reach
}

#[test]
fn no_dependency_is_violated_in_any_acyclic_graph() {
    let mut random = Random(0x5eed_0001);
    for round in 0..2_000 {
        let edges = acyclic(&mut random, 1 + round % 40);
        let order = components(&edges);
        assert!(order.iter().all(|group| group.len() == 1 && !is_cycle(&edges, group)));
        let mut place = vec![usize::MAX; edges.len()];
        order.iter().enumerate().for_each(|(at, group)| place[group[0]] = at);
        assert!(place.iter().all(|at| *at != usize::MAX));
        for (from, to) in edges.iter().enumerate() {
            assert!(to.iter().all(|to| place[*to] < place[from]), "{edges:?} {order:?}");
        }
    }
}

#[test]
fn all_cycles_are_found_in_any_graph() {
    let mut random = Random(0x5eed_0002);
    let mut cycles = 0;
    for round in 0..1_000 {
        let size = 1 + round % 25;
        let mut edges = vec![Vec::new(); size];
        for _ in 0..random.below(size * 2 + 1) {
            edges[random.below(size)].push(random.below(size));
        }
        let reach = reaches(&edges);
        let order = components(&edges);
        let mut group_of = vec![usize::MAX; size];
        for (at, group) in order.iter().enumerate() {
            group.iter().for_each(|vertex| group_of[*vertex] = at);
            assert_eq!(is_cycle(&edges, group), reach[group[0]][group[0]]);
            cycles += usize::from(is_cycle(&edges, group));
        }
        for one in 0..size {
            for other in 0..size {
                let together = one == other || (reach[one][other] && reach[other][one]);
                assert_eq!(group_of[one] == group_of[other], together, "{edges:?} {order:?}");
                // What is led to is never behind.
                assert!(!reach[one][other] || group_of[other] <= group_of[one]);
            }
        }
    }
    assert!(cycles > 300);
}

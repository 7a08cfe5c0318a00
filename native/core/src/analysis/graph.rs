//! Directed graphs: strongly connected components, in an order in which all that a component
//! leads to comes before it (Tarjan, without recursion).

/// The components of a graph of `edges`: for each vertex, those it leads to. An edge to a vertex
/// that does not exist is left out.
///
/// The result is the same in every run: vertices are gone through by their numbers, and those of
/// a component are sorted.
pub fn components(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut search = Search {
        edges,
        next: 0,
        vertices: vec![Vertex::default(); edges.len()],
        open: Vec::new(),
        found: Vec::new(),
    };
    for root in 0..edges.len() {
        if search.vertices.get(root).is_some_and(|vertex| vertex.number.is_none()) {
            search.from(root);
        }
    }
    search.found
}

/// Whether a component is a cycle: several vertices, or one that leads to itself.
pub fn is_cycle(edges: &[Vec<usize>], component: &[usize]) -> bool {
    match component {
        [only] => edges.get(*only).is_some_and(|to| to.contains(only)),
        _ => true,
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Vertex {
    /// In which order it was reached.
    number: Option<usize>,
    /// The first vertex of those that are open to which it leads.
    lowest: usize,
    /// Reached, and not known yet to be in a component.
    open: bool,
}

struct Search<'e> {
    edges: &'e [Vec<usize>],
    next: usize,
    vertices: Vec<Vertex>,
    open: Vec<usize>,
    found: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn from(&mut self, root: usize) {
        self.reach(root);
        // Each vertex on the way, and how many of its edges were followed.
        let mut way = vec![(root, 0)];
        while let Some((vertex, followed)) = way.last_mut() {
            let vertex = *vertex;
            let to = self.edges.get(vertex).and_then(|to| to.get(*followed)).copied();
            *followed += 1;
            match to {
                Some(to) => {
                    if let Some(step) = self.follow(vertex, to) {
                        way.push((step, 0));
                    }
                }
                None => {
                    way.pop();
                    self.close(vertex);
                    if let Some((before, _)) = way.last() {
                        self.lower(*before, vertex);
                    }
                }
            }
        }
    }

    fn reach(&mut self, index: usize) {
        if let Some(vertex) = self.vertices.get_mut(index) {
            *vertex = Vertex { number: Some(self.next), lowest: self.next, open: true };
            self.next += 1;
            self.open.push(index);
        }
    }

    /// Follows an edge: gives where it leads if that was not reached before.
    fn follow(&mut self, from: usize, to: usize) -> Option<usize> {
        let target = *self.vertices.get(to)?;
        let Some(number) = target.number else {
            self.reach(to);
            return Some(to);
        };
        if target.open
            && let Some(vertex) = self.vertices.get_mut(from)
        {
            vertex.lowest = vertex.lowest.min(number);
        }
        None
    }

    fn lower(&mut self, before: usize, behind: usize) {
        let lowest = self.vertices.get(behind).map_or(usize::MAX, |vertex| vertex.lowest);
        if let Some(vertex) = self.vertices.get_mut(before) {
            vertex.lowest = vertex.lowest.min(lowest);
        }
    }

    /// All edges of a vertex were followed: if it leads to none before it, what is open from it on
    /// is a component.
    fn close(&mut self, index: usize) {
        let Some(vertex) = self.vertices.get(index) else { return };
        if vertex.number != Some(vertex.lowest) {
            return;
        }
        let from = self.open.iter().rposition(|open| *open == index).unwrap_or_default();
        let mut component = self.open.split_off(from);
        for member in &component {
            if let Some(vertex) = self.vertices.get_mut(*member) {
                vertex.open = false;
            }
        }
        component.sort_unstable();
        self.found.push(component);
    }
}

#[cfg(test)]
mod tests {
    use super::{components, is_cycle};

    #[test]
    fn what_is_led_to_comes_first() {
        assert_eq!(components(&[vec![1], vec![2], vec![]]), [[2], [1], [0]]);
        assert_eq!(components(&[vec![7]]), [[0]]);
        assert!(components(&[]).is_empty());
    }

    #[test]
    fn tells_cycles() {
        let edges = [vec![1], vec![2], vec![0, 3], vec![3], vec![]];
        let found = components(&edges);
        assert_eq!(found, [vec![3], vec![0, 1, 2], vec![4]]);
        let cycles: Vec<bool> = found.iter().map(|one| is_cycle(&edges, one)).collect();
        assert_eq!(cycles, [true, true, false]);
    }

    #[test]
    fn does_not_recurse() {
        let mut edges: Vec<Vec<usize>> = (1..=200_000).map(|next| vec![next]).collect();
        edges.push(vec![0]);
        assert_eq!(components(&edges).len(), 1);
    }
}

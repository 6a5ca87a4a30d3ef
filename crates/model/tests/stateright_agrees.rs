//! Our search against another's: stateright, walking the same steps without our symmetry, tidying included, finds as
//! many states, as deep, and nothing broken; and our symmetry leaves out no state, only names.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;

use stateright::{Checker as _, Model, Property};
use vstack_model::{
    Begin, Faults, Form, Scope, Wish, search, search_without_symmetry, state::State, step::Step, world::World,
};

const THREE: &[u8] = &[1, 2, 3];

thread_local! {
    /// Stateright wants a model that threads may share, ours keeps tables. Each thread fills its own, and all begin with
    /// the same state; there is one thread that walks.
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

struct Walk(Scope);

impl Walk {
    fn steps(&self, state: &State) -> Option<Vec<(Step, State)>> {
        let mut steps = Vec::new();
        self.with(|world| world.steps(state, &mut steps).is_ok())
            .then_some(steps)
    }

    fn with<T>(&self, ask: impl FnOnce(&mut World) -> T) -> T {
        WORLD.with_borrow_mut(|world| {
            let world = world.get_or_insert_with(|| {
                let mut world = World::new(self.0.clone());
                world.begin();
                world
            });
            ask(world)
        })
    }
}

impl Model for Walk {
    type State = State;
    type Action = usize;

    fn init_states(&self) -> Vec<State> {
        // A scope walked before in this thread had other tables.
        WORLD.set(None);
        vec![self.with(World::begin)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<usize>) {
        actions.extend(0..self.steps(state).map_or(0, |steps| steps.len()));
    }

    fn next_state(&self, state: &State, action: usize) -> Option<State> {
        self.steps(state)?.into_iter().nth(action).map(|(_, next)| next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("nothing breaks", |walk: &Self, state| {
            walk.steps(state).is_some()
        })]
    }
}

fn agrees(scope: &Scope) {
    let ours = search_without_symmetry(scope);
    let theirs = Walk(scope.clone()).checker().threads(1).spawn_bfs().join();
    theirs.assert_properties();
    let folded = search(scope);
    println!(
        "{}: {} states by stateright, {} by ours, {} up to {} renamings",
        scope.name,
        theirs.unique_state_count(),
        ours.states,
        folded.states,
        folded.renamings
    );
    assert_eq!(theirs.unique_state_count(), ours.states);
    assert_eq!(ours.rule(), None);
    assert_eq!(ours.decided.len(), folded.decided.len());
    assert!(folded.states <= ours.states && folded.states * folded.renamings >= ours.states);
}

#[test]
fn stateright_finds_as_many_states() {
    let sent = Begin::Sent(Form::Copies(THREE));
    let lost = Faults {
        total: 1,
        lost: true,
        gc: true,
        ..Faults::default()
    };
    agrees(&Scope::new("owner against abort", 3, THREE, sent, 1, &[Wish::Abort, Wish::Delete]).faults(lost));
    let to_124 = Wish::Move(Form::Copies(&[1, 2, 4]));
    agrees(
        &Scope::new("replace a node", 4, THREE, Begin::Stored, 1, &[to_124])
            .attempts(2)
            .faults(lost),
    );
    agrees(&Scope::new("two rivals", 3, THREE, sent, 2, &[Wish::Abort]));
}

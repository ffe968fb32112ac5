//! What must hold.

use pure::lease::elector::LockView;
use pure::lease::term::Term;
use stateright::Property;

use super::model::Model;
use super::world::{World, number};

pub const S1: &str = "S1 one JVM at most may write, and it is the one whose latch is the lowest";
pub const S2: &str = "S2 no JVM stores a plan where another version's is expected";
pub const S3: &str = "S3 terms rise, and no two grants have the same";
pub const S4: &str = "S4 nobody is granted leadership before the HA data was examined in that term";
pub const S5: &str = "S5 what was released is not used";
pub const S6: &str = "S6 terms rise in the order of latches";
pub const S7: &str = "S7 a gateway takes over and cleans up only while its latch is the lowest";
pub const S8: &str = "S8 no process that is known to have ended is taken for the leader";
pub const S9: &str = "S9 no JVM is let in only to be ended";
pub const L1: &str = "L1 when faults have ended, a JVM leads, and the ledger says so";
pub const ALL: [&str; 10] = [S1, S2, S3, S4, S5, S6, S7, S8, S9, L1];

fn holds(model: &Model, world: &World, property: &'static str) -> bool {
    match property {
        S8 => world.gateways.iter().all(|gateway| {
            let shown = gateway.machine.as_ref().map(|machine| machine.shown());
            let is_dead = |term: &Term| gateway.told == gateway.proxy && gateway.seen_dead.contains(&number(term.jvm));
            !matches!(shown, Some(LockView::Leader { term, .. }) if is_dead(&term))
        }),
        L1 => !model.is_calm(world) || model.settle(world, |world| model.is_led(world)).is_some(),
        _ => {
            world.ghost.offence != Some(property)
                && (property != S1 || (0..world.gateways.len()).filter(|g| world.may_write(*g)).count() <= 1)
        }
    }
}

macro_rules! properties {
    ($($name:ident),*) => {
        vec![$(Property::<Model>::always($name, |model, world| holds(model, world, $name))),*]
    };
}

impl Model {
    pub fn properties_checked(&self) -> Vec<Property<Self>> {
        let mut all = properties!(S1, S2, S3, S4, S5, S6, S7, S8, S9, L1);
        all.retain(|property| self.checks.contains(&property.name));
        all
    }
}

//! The scopes that are searched, with how many states each has.
//!
//! The counts are part of what is checked: a rule that makes a state unreachable, or a search that forgets some, shows.

use crate::scope::{Begin, Faults, Form, Nodes, Scope, Wish};

const THREE: Nodes = &[1, 2, 3];
const FIVE: Nodes = &[1, 2, 3, 4, 5];
const NO_FAULTS: Faults = Faults {
    total: 0,
    lost: false,
    rot: false,
    votes: false,
    newest_votes: false,
    register_votes: false,
    old: false,
    unnoticed: false,
    heir: None,
    leaving: 0,
    gc: false,
    strays: false,
    group: None,
};
const GC: Faults = Faults { gc: true, ..NO_FAULTS };
const LOST: Faults = Faults {
    total: 1,
    lost: true,
    ..NO_FAULTS
};
const LOST_GC: Faults = Faults { gc: true, ..LOST };
const TWO_LOST: Faults = Faults { total: 2, ..LOST_GC };

const SENT: Begin = Begin::Sent(Form::Copies(THREE));
const FIVE_SENT: Begin = Begin::Sent(Form::Copies(FIVE));
const TO_123: Wish = Wish::Move(Form::Copies(THREE));
const TO_124: Wish = Wish::Move(Form::Copies(&[1, 2, 4]));
const TO_125: Wish = Wish::Move(Form::Copies(&[1, 2, 5]));
const TO_456: Wish = Wish::Move(Form::Copies(&[4, 5, 6]));
const TO_2_1: Wish = Wish::Move(Form::Shards(2, THREE));
const TO_2_2_1: Wish = Wish::Move(Form::Shards(3, &[1, 1, 2, 2, 3]));
const TO_3_2: Wish = Wish::Move(Form::Shards(3, FIVE));
const FIRST: [Wish; 3] = [Wish::Abort, Wish::Create, Wish::Delete];
const ENDS: [Wish; 3] = [Wish::Settle, Wish::TurnBack, Wish::Delete];

fn moving(to: Wish) -> Vec<Wish> {
    let mut wishes = ENDS.to_vec();
    wishes.push(to);
    wishes
}

/// A scope, and what a search of it must come to.
#[derive(Debug, Clone)]
pub struct Row {
    /// The bounds.
    pub scope: Scope,
    /// States there are, the same under renaming counted once.
    pub states: usize,
    /// Placements that must be decided in one history or another.
    pub decides: &'static [&'static str],
}

fn row(scope: Scope, states: usize, decides: &'static [&'static str]) -> Row {
    Row { scope, states, decides }
}

mod deep;

pub use deep::deep;

/// Those that are searched whole on every run of the tests.
pub fn short() -> Vec<Row> {
    let mut rows = first_versions();
    rows.extend(moves());
    rows.extend(renewals());
    rows.extend(disks());
    rows
}

fn first_versions() -> Vec<Row> {
    let new = Scope::new;
    vec![
        row(
            new("owner and two rivals", 3, THREE, SENT, 2, &FIRST)
                .staged(THREE)
                .faults(LOST_GC),
            576_291,
            &["v1X 123", "v1Y 123", "v1 gone@123", "v2X gone@123", "v2Y gone@123"],
        ),
        row(
            new("every reply may be lost", 3, THREE, SENT, 2, &FIRST)
                .staged(THREE)
                .exact(),
            166_703,
            &["v1X 123", "v1Y 123", "v1 gone@123", "v2X gone@123"],
        ),
        row(
            new("rivals that try again", 3, THREE, Begin::Empty, 2, &[Wish::Create])
                .attempts(2)
                .staged(&[1]),
            282_592,
            &["v1Y 123"],
        ),
        row(
            new("three rivals", 3, THREE, SENT, 3, &[Wish::Delete]),
            303_975,
            &["v1X 123", "v1 gone@123", "v2X gone@123"],
        ),
        row(
            new("no owner", 3, THREE, Begin::Empty, 3, &FIRST)
                .staged(THREE)
                .faults(GC),
            101_369,
            &["v1Y 123", "v1 gone@123", "v2Y gone@123"],
        ),
        row(
            new("groups and strays", 5, THREE, SENT, 2, &[Wish::Delete]).faults(Faults {
                strays: true,
                group: Some(&[3, 4, 5]),
                ..NO_FAULTS
            }),
            319_882,
            &["v1X 123", "v1 gone@123", "v2X gone@123"],
        ),
        row(
            new(
                "coded first version",
                3,
                THREE,
                Begin::Sent(Form::Shards(2, THREE)),
                2,
                &[Wish::Abort, Wish::Settle],
            )
            .faults(LOST_GC),
            71_140,
            &["v1X nothing>2+1@123", "v2X 2+1@123", "v2X gone@123"],
        ),
        row(
            new(
                "complete a coded version, go on",
                3,
                THREE,
                Begin::Sent(Form::Shards(2, THREE)),
                2,
                &[Wish::Abort, Wish::Settle],
            )
            .completing()
            .faults(LOST_GC),
            227_928,
            &["v1X nothing>2+1@123", "v2X 2+1@123", "v2X gone@123"],
        ),
    ]
}

fn moves() -> Vec<Row> {
    let new = Scope::new;
    vec![
        row(
            new("replace a node", 4, THREE, Begin::Stored, 2, &moving(TO_124))
                .faults(GC)
                .knowing(),
            44_873,
            &["v2X 123>124", "v3X 124", "v3X 124>123 back"],
        ),
        row(
            new(
                "complete a move, go on",
                4,
                THREE,
                Begin::Stored,
                2,
                &[TO_124, Wish::Settle, Wish::TurnBack],
            )
            .completing()
            .faults(GC),
            222_591,
            &["v2X 123>124", "v3X 124", "v3X 124>123 back"],
        ),
        row(
            new(
                "replace, any reply lost",
                4,
                THREE,
                Begin::Stored,
                2,
                &[TO_124, Wish::Settle, Wish::TurnBack],
            )
            .exact(),
            82_290,
            &["v2X 123>124", "v3X 124", "v3X 124>123 back"],
        ),
        row(
            new(
                "turn a move back",
                4,
                THREE,
                Begin::Moving(Form::Copies(&[1, 2, 4])),
                2,
                &[Wish::Settle, Wish::TurnBack, Wish::Read],
            )
            .faults(GC),
            19_826,
            &["v3X 124", "v3X 124>123 back", "v4X 123"],
        ),
        row(
            new("replace, one lost", 4, THREE, Begin::Stored, 2, &moving(TO_124)).faults(LOST_GC),
            77_343,
            &["v2X 123>124", "v3X 124", "v3X 124>123 back"],
        ),
        row(
            new(
                "replace before it is decided",
                4,
                THREE,
                SENT,
                2,
                &[Wish::Abort, TO_124],
            ),
            180_178,
            &["v1X 123", "v1 gone@123", "v2X 123>124"],
        ),
        row(
            new(
                "to shards on the same nodes",
                3,
                THREE,
                Begin::Stored,
                2,
                &moving(TO_2_1),
            )
            .faults(LOST_GC),
            57_745,
            &["v2X 123>2+1@123", "v3X 2+1@123", "v3X 2+1@123>123 back"],
        ),
        row(
            new(
                "complete a move to shards, go on",
                3,
                THREE,
                Begin::Stored,
                2,
                &[TO_2_1, Wish::Settle, Wish::TurnBack],
            )
            .completing()
            .faults(LOST_GC),
            71_364,
            &["v2X 123>2+1@123", "v3X 2+1@123", "v3X 2+1@123>123 back"],
        ),
        row(
            new(
                "to shards, any reply lost",
                3,
                THREE,
                Begin::Stored,
                2,
                &[TO_2_1, Wish::Settle, Wish::TurnBack],
            )
            .exact(),
            8_450,
            &["v2X 123>2+1@123", "v3X 2+1@123", "v3X 2+1@123>123 back"],
        ),
        row(
            new(
                "from shards to copies",
                3,
                THREE,
                Begin::Moved(Form::Shards(2, THREE)),
                2,
                &[TO_123, Wish::Settle, Wish::TurnBack],
            )
            .faults(LOST_GC),
            40_942,
            &["v4X 2+1@123>123", "v5X 123", "v5X 123>2+1@123 back"],
        ),
        row(
            new(
                "to 2+2+1 shards",
                3,
                THREE,
                Begin::Stored,
                2,
                &[TO_2_2_1, Wish::Settle, Wish::TurnBack],
            )
            .faults(LOST_GC),
            341_095,
            &["v2X 123>3+2@123", "v3X 3+2@123", "v3X 3+2@123>123 back"],
        ),
        row(
            new("to other nodes", 6, THREE, Begin::Stored, 2, &[TO_456, Wish::Settle]),
            98_093,
            &["v2X 123>456", "v3X 456"],
        ),
        row(
            new(
                "chained",
                5,
                THREE,
                Begin::Moving(Form::Copies(&[1, 2, 4])),
                2,
                &[Wish::Settle, TO_125],
            )
            .knowing(),
            17_762,
            &["v3X 124", "v4X 124>125"],
        ),
    ]
}

/// What is placed is decided once more, while it is moved, and while a move of it is ended.
fn renewals() -> Vec<Row> {
    let new = Scope::new;
    vec![
        row(
            new(
                "decide once more, or move",
                4,
                THREE,
                Begin::Stored,
                2,
                &[TO_124, Wish::Renew],
            )
            .faults(GC)
            .knowing(),
            22_255,
            &["v2X 123>124"],
        ),
        row(
            new(
                "decide a move once more",
                4,
                THREE,
                Begin::Moving(Form::Copies(&[1, 2, 4])),
                2,
                &[Wish::Settle, Wish::TurnBack, Wish::Renew],
            )
            .faults(GC)
            .knowing(),
            81_273,
            &["v3X 124", "v3X 124>123 back"],
        ),
        row(
            new(
                "decide shards once more",
                3,
                THREE,
                Begin::Moving(Form::Shards(2, THREE)),
                2,
                &[Wish::Settle, Wish::TurnBack, Wish::Renew],
            )
            .faults(LOST_GC),
            6_847,
            &["v3X 2+1@123", "v3X 2+1@123>123 back"],
        ),
    ]
}

fn disks() -> Vec<Row> {
    let new = Scope::new;
    let fails = |faults: Faults| Faults { total: 1, ..faults };
    vec![
        row(
            new("rot", 4, THREE, Begin::Stored, 2, &[TO_124, Wish::Settle]).faults(fails(Faults { rot: true, ..GC })),
            184_376,
            &["v2X 123>124", "v3X 124"],
        ),
        row(
            new("rot under the owner", 3, THREE, SENT, 2, &[Wish::Delete]).faults(fails(Faults { rot: true, ..GC })),
            141_571,
            &["v1X 123", "v2X gone@123"],
        ),
        row(
            new(
                "five copies, two lost",
                5,
                FIVE,
                FIVE_SENT,
                1,
                &[Wish::Abort, Wish::Delete],
            )
            .faults(TWO_LOST),
            86_978,
            &["v1X 12345", "v1 gone@12345"],
        ),
        row(
            new("replace, two lost", 4, THREE, Begin::Stored, 2, &[TO_124, Wish::Settle]).faults(TWO_LOST),
            58_309,
            &["v2X 123>124", "v3X 124"],
        ),
        row(
            new(
                "five to shards, two lost",
                5,
                FIVE,
                Begin::Moving(Form::Shards(3, FIVE)),
                2,
                &[Wish::Settle, Wish::TurnBack],
            )
            .faults(TWO_LOST),
            88_273,
            &["v3X 3+2@12345", "v3X 3+2@12345>12345 back"],
        ),
        row(
            new("lost votes", 3, THREE, SENT, 2, &[Wish::Abort]).faults(fails(Faults {
                votes: true,
                newest_votes: true,
                ..NO_FAULTS
            })),
            235_036,
            &["v1X 123", "v1 gone@123"],
        ),
        row(
            new("lost votes of one chunk", 3, THREE, SENT, 2, &[Wish::Abort]).faults(fails(Faults {
                register_votes: true,
                ..NO_FAULTS
            })),
            82_160,
            &["v1X 123", "v1 gone@123"],
        ),
        row(
            new("lost votes, adopted", 4, THREE, Begin::Stored, 2, &moving(TO_124)).faults(fails(Faults {
                votes: true,
                heir: Some(4),
                ..GC
            })),
            22_729,
            &["v2X 123>124", "v3X 124"],
        ),
        row(
            new("old disk", 3, THREE, SENT, 2, &[Wish::Abort]).faults(fails(Faults { old: true, ..NO_FAULTS })),
            232_037,
            &["v1X 123", "v1 gone@123"],
        ),
        row(
            new("old disk, adopted", 4, THREE, Begin::Stored, 2, &moving(TO_124)).faults(fails(Faults {
                old: true,
                heir: Some(4),
                ..GC
            })),
            72_093,
            &["v2X 123>124", "v3X 124"],
        ),
        row(
            new(
                "leaving",
                4,
                THREE,
                Begin::Moving(Form::Copies(&[1, 2, 4])),
                2,
                &[Wish::Settle, Wish::TurnBack],
            )
            .faults(Faults { leaving: 1, ..GC })
            .knowing(),
            48_220,
            &["v3X 124", "v3X 124>123 back", "v4X 123"],
        ),
    ]
}

//! Scopes that take long. A count of 0 says that none was counted whole since a state last came to hold
//! something else.

use super::{
    FIVE, FIVE_SENT, GC, LOST, LOST_GC, NO_FAULTS, Row, SENT, THREE, TO_2_1, TO_3_2, TO_124, TO_125, moving, row,
};
use crate::scope::{Begin, Faults, Form, Scope, Wish};

const LOST_VOTES: Faults = Faults {
    total: 1,
    votes: true,
    newest_votes: true,
    ..NO_FAULTS
};

/// Those that take long, or are cut off: how far they went is part of what they say.
pub fn deep() -> Vec<Row> {
    let new = Scope::new;
    let five_coded = Begin::Sent(Form::Shards(3, FIVE));
    let moved = Begin::Moving(Form::Copies(&[1, 2, 4]));
    vec![
        row(
            new(
                "three rivals, two contents",
                3,
                THREE,
                SENT,
                3,
                &[Wish::Abort, Wish::Create],
            )
            .staged(THREE),
            729_044,
            &["v1X 123", "v1Y 123", "v1 gone@123"],
        ),
        row(
            new(
                "two rivals, twice each",
                3,
                THREE,
                SENT,
                2,
                &[Wish::Abort, Wish::Delete],
            )
            .attempts(2),
            4_078_605,
            &["v1X 123", "v1 gone@123", "v2X gone@123"],
        ),
        row(
            new(
                "three rivals replace a node",
                4,
                THREE,
                Begin::Stored,
                3,
                &moving(TO_124),
            )
            .faults(GC),
            2_978_041,
            &["v2X 123>124", "v3X 124", "v3X 124>123 back", "v4X gone@124"],
        ),
        row(
            new("three rivals, to shards", 3, THREE, Begin::Stored, 3, &moving(TO_2_1)).faults(LOST_GC),
            9_033_889,
            &["v2X 123>2+1@123", "v3X 2+1@123", "v3X 2+1@123>123 back", "v4X gone@123"],
        ),
        row(
            new("five copies", 5, FIVE, FIVE_SENT, 2, &[Wish::Abort, Wish::Create]).staged(FIVE),
            1_748_593,
            &["v1X 12345", "v1Y 12345", "v1 gone@12345"],
        ),
        row(
            new(
                "three rivals turn a move back",
                4,
                THREE,
                moved,
                3,
                &[Wish::Settle, Wish::TurnBack],
            )
            .faults(GC),
            969_891,
            &["v3X 124", "v3X 124>123 back", "v4X 123"],
        ),
        row(
            new(
                "three rivals replace, then settle",
                4,
                THREE,
                Begin::Stored,
                3,
                &[TO_124, Wish::Settle],
            ),
            840_311,
            &["v2X 123>124", "v3X 124"],
        ),
        row(
            new(
                "replace a node, twice each",
                4,
                THREE,
                Begin::Stored,
                2,
                &[TO_124, Wish::Settle],
            )
            .attempts(2),
            5_337_017,
            &["v2X 123>124", "v3X 124"],
        ),
        row(
            new(
                "to shards, twice each",
                3,
                THREE,
                Begin::Stored,
                2,
                &[TO_2_1, Wish::Settle],
            )
            .attempts(2)
            .faults(GC),
            998_180,
            &["v2X 123>2+1@123", "v3X 2+1@123"],
        ),
        row(
            new(
                "coded first version, twice each",
                3,
                THREE,
                Begin::Sent(Form::Shards(2, THREE)),
                2,
                &[Wish::Abort, Wish::Settle],
            )
            .attempts(2),
            2_794_984,
            &["v1X nothing>2+1@123", "v2X 2+1@123", "v2X gone@123"],
        ),
        row(
            new("lost votes before a move", 4, THREE, SENT, 2, &[Wish::Abort, TO_124]).faults(LOST_VOTES),
            7_199_666,
            &["v1X 123", "v2X 123>124"],
        ),
        row(
            new(
                "lost votes in a move",
                4,
                THREE,
                moved,
                2,
                &[Wish::Settle, Wish::TurnBack],
            )
            .faults(LOST_VOTES),
            433_043,
            &["v3X 124", "v3X 124>123 back"],
        ),
        row(
            new("old disk under a move", 4, THREE, SENT, 2, &[Wish::Abort, TO_124]).faults(Faults {
                total: 1,
                old: true,
                ..NO_FAULTS
            }),
            7_073_360,
            &["v1X 123", "v2X 123>124"],
        ),
        row(
            new(
                "to shards on five",
                5,
                THREE,
                Begin::Stored,
                2,
                &[TO_3_2, Wish::Settle, Wish::TurnBack],
            )
            .faults(LOST_GC),
            3_807_270,
            &["v2X 123>3+2@12345", "v3X 3+2@12345", "v3X 3+2@12345>123 back"],
        ),
        row(
            new(
                "coded first version on five",
                5,
                FIVE,
                five_coded,
                2,
                &[Wish::Abort, Wish::Settle],
            )
            .faults(LOST),
            0,
            &["v1X nothing>3+2@12345", "v2X gone@12345"],
        ),
        row(
            new(
                "chained to the end",
                5,
                THREE,
                moved,
                3,
                &[Wish::Settle, Wish::TurnBack, TO_125],
            ),
            2_229_947,
            &["v3X 124", "v3X 124>123 back"],
        ),
        row(
            new(
                "chained from the start",
                5,
                THREE,
                Begin::Stored,
                4,
                &[TO_124, TO_125, Wish::Settle],
            ),
            0,
            &["v2X 123>124"],
        ),
        row(
            new(
                "four rivals replace a node",
                4,
                THREE,
                Begin::Stored,
                4,
                &[TO_124, Wish::Settle, Wish::TurnBack],
            ),
            0,
            &["v2X 123>124", "v3X 124>123 back"],
        ),
    ]
}

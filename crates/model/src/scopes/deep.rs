//! Scopes that take long. A count of 0 says that none was searched whole yet.

use super::{FIVE, GC, LOST, LOST_GC, NO_FAULTS, Row, SENT, THREE, TO_2_1, TO_3_2, TO_124, TO_125, moving, row};
use crate::scope::{Begin, Faults, Form, Scope, Wish};

/// Those that take long, or are cut off: how far they went is part of what they say.
pub fn deep() -> Vec<Row> {
    let new = Scope::new;
    let five = Begin::Sent(Form::Copies(FIVE));
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
            680_832,
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
            2_993_339,
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
            2_898_751,
            &["v2X 123>124", "v3X 124", "v3X 124>123 back", "v4X gone@124"],
        ),
        row(
            new("three rivals, to shards", 3, THREE, Begin::Stored, 3, &moving(TO_2_1)).faults(LOST_GC),
            7_326_580,
            &["v2X 123>2+1@123", "v3X 2+1@123", "v3X 2+1@123>123 back", "v4X gone@123"],
        ),
        row(
            new("five copies", 5, FIVE, five, 2, &[Wish::Abort, Wish::Create]).staged(FIVE),
            1_690_921,
            &["v1X 12345", "v1Y 12345", "v1 gone@12345"],
        ),
        row(
            new("lost votes under a move", 4, THREE, SENT, 2, &[Wish::Abort, TO_124]).faults(Faults {
                total: 1,
                votes: true,
                ..NO_FAULTS
            }),
            2_068_567,
            &["v1X 123", "v2X 123>124"],
        ),
        row(
            new("old disk under a move", 4, THREE, SENT, 2, &[Wish::Abort, TO_124]).faults(Faults {
                total: 1,
                old: true,
                ..NO_FAULTS
            }),
            6_741_843,
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
            3_379_400,
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
            2_165_020,
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

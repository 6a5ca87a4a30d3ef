use super::*;

fn at(seconds: u64) -> Monotonic {
    Monotonic::from_start(Duration::from_secs(seconds))
}

fn buffer(speed: Speed, chunks: usize) -> Buffer {
    let chunk = Duration::from_secs(4);
    Buffer::new(BufferSettings::default(), speed, &vec![chunk; chunks], at(100))
}

#[test]
fn it_starts_at_ten_seconds_and_plays_in_real_time() {
    let mut buffer = buffer(Speed::RealTime, 10);
    for (second, state) in [
        (101, BufferState::Starting),
        (102, BufferState::Starting),
        (103, BufferState::Low),
    ] {
        buffer.advance(at(second));
        buffer.chunk_ready();
        assert_eq!(buffer.state(), state, "after the chunk of second {second}");
    }
    assert_eq!(buffer.startup(), Some(Duration::from_secs(3)));
    buffer.advance(at(108));
    assert_eq!(
        (buffer.position(), buffer.level()),
        (Duration::from_secs(5), Duration::from_secs(7))
    );
    assert_eq!(buffer.status().current_position, 1);
    assert_eq!(buffer.stats().total_chunks_played, 1);
    (0..3).for_each(|_| buffer.chunk_ready());
    assert_eq!(buffer.state(), BufferState::Healthy);
    // 12 s falling to 7 s in 5 s is 9.5 s on average.
    assert!((buffer.stats().average_buffer_level - 9.5).abs() < 1e-9);
}

#[test]
fn running_dry_is_one_rebuffering_and_five_seconds_resume() {
    let mut buffer = buffer(Speed::RealTime, 10);
    (0..3).for_each(|_| buffer.chunk_ready());
    assert_eq!(buffer.deadline(), Some(at(112)));
    buffer.advance(at(120));
    assert_eq!(
        (buffer.state(), buffer.position()),
        (BufferState::Stalled, Duration::from_secs(12))
    );
    buffer.chunk_ready();
    assert_eq!(buffer.state(), BufferState::Stalled, "4 s are not 5 s");
    buffer.chunk_ready();
    assert_eq!(buffer.state(), BufferState::Low);
    buffer.advance(at(121));
    assert_eq!(buffer.position(), Duration::from_secs(13));
    assert_eq!(buffer.stats().rebuffering_events, 1);
    // 12 s falling to 0 in 12 s, 0 for 8 s, 8 s falling to 7 s in 1 s.
    assert!((buffer.stats().average_buffer_level - (72.0 + 7.5) / 21.0).abs() < 1e-9);
}

#[test]
fn a_short_video_starts_when_whole_and_ends_without_a_stall() {
    let mut buffer = buffer(Speed::RealTime, 2);
    buffer.chunk_ready();
    assert_eq!(buffer.state(), BufferState::Starting);
    buffer.chunk_ready();
    assert_eq!(buffer.state(), BufferState::Healthy);
    buffer.advance(at(1000));
    assert_eq!(buffer.state(), BufferState::Ended);
    assert_eq!(buffer.position(), Duration::from_secs(8));
    assert_eq!(
        (buffer.stats().rebuffering_events, buffer.stats().total_chunks_played),
        (0, 2)
    );
}

#[test]
fn at_full_speed_the_sink_moves_the_position() {
    let mut buffer = buffer(Speed::Max, 4);
    (0..4).for_each(|_| buffer.chunk_ready());
    buffer.advance(at(500));
    assert_eq!(buffer.position(), Duration::ZERO);
    (0..3).for_each(|_| buffer.chunk_consumed());
    assert_eq!(
        (buffer.position(), buffer.state()),
        (Duration::from_secs(12), BufferState::Healthy)
    );
    buffer.chunk_consumed();
    assert_eq!(
        (buffer.state(), buffer.stats().rebuffering_events),
        (BufferState::Ended, 0)
    );
}

#[test]
fn an_empty_video_has_ended() {
    assert!(buffer(Speed::RealTime, 0).has_ended());
}

#[test]
fn twice_as_fast_plays_two_seconds_a_second_and_half_as_fast_half_a_one() {
    for (speed, empty_after, played_in_two) in [("2", 6, 4), ("0.5", 24, 1)] {
        let mut buffer = buffer(speed.parse().unwrap(), 10);
        (0..3).for_each(|_| buffer.chunk_ready());
        assert_eq!(buffer.deadline(), Some(at(100 + empty_after)), "12 s of video");
        assert_eq!(buffer.slack(2), Duration::from_secs(empty_after * 8 / 12));
        assert_eq!(
            buffer.played_at(Duration::from_secs(4)),
            Some(at(100 + empty_after / 3))
        );
        buffer.advance(at(102));
        assert_eq!(buffer.position(), Duration::from_secs(played_in_two), "{speed}");
        buffer.advance(at(100 + empty_after + 3));
        assert_eq!(
            (buffer.state(), buffer.position()),
            (BufferState::Stalled, Duration::from_secs(12))
        );
        // 12 s falling to 0 until it is empty, and 3 s at 0: time is counted, not video.
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let empty_after = empty_after as f64;
        let average = 6.0 * empty_after / (empty_after + 3.0);
        assert!((buffer.stats().average_buffer_level - average).abs() < 1e-9, "{speed}");
        (0..7).for_each(|_| buffer.chunk_ready());
        buffer.advance(at(1000));
        assert!(buffer.has_ended() && buffer.stats().rebuffering_events == 1);
    }
}

"""Results kept by weight."""

from concurrent.futures import ThreadPoolExecutor

from grammars.memo import memo


def counted(bound):
    made = []

    @memo(lambda result, *_: len(result), bound)
    def repeat(text, times, reverse=False):
        made.append((text, times, reverse))
        return (text[::-1] if reverse else text) * times

    return repeat, made


def test_a_result_is_made_once():
    repeat, made = counted(1_000)
    assert repeat("ab", 3) == repeat("ab", 3) == "ababab"
    assert made == [("ab", 3, False)]


def test_named_arguments_belong_to_the_key():
    repeat, made = counted(1_000)
    assert (repeat("ab", 1), repeat("ab", 1, reverse=True)) == ("ab", "ba")
    assert repeat("ab", 1, reverse=True) == "ba"
    assert len(made) == 2


def test_the_least_recently_used_goes_first():
    repeat, made = counted(80)
    for text in "abcdefgh":
        repeat(text, 10)
    repeat("a", 10)
    repeat("i", 10)  # takes the room of b
    assert repeat.weight == 80 and len(made) == 9
    repeat("a", 10)
    assert len(made) == 9
    repeat("b", 10)
    assert len(made) == 10


def test_what_is_too_heavy_is_not_kept():
    repeat, made = counted(80)
    assert len(repeat("a", 11)) == len(repeat("a", 11)) == 11
    assert len(made) == 2 and repeat.weight == 0


def test_threads_share_it():
    repeat, _ = counted(50_000)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: repeat("x", n % 200), range(4_000)))
    assert [len(text) for text in done] == [n % 200 for n in range(4_000)]
    assert repeat.weight == sum(range(200))

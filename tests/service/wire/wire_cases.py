"""What may come over the wire, as bytes, and what must be answered: after the classes of Http11Probe (RFC 9110, 9112).

A case ends with the server hanging up, unless it `stays`.
"""

from dataclasses import dataclass

HOST = b"Host: a"
CHUNKED = b"Transfer-Encoding: chunked"
FIVE = b"Content-Length: 5"


@dataclass(frozen=True)
class Case:
    """Bytes, and the status of each answer to them."""

    name: str
    sent: bytes
    statuses: tuple[int, ...]
    stays: bool = False


def ask(*headers: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = HOST, body: bytes = b"") -> bytes:
    """A request, by default a right one."""
    lines = [line, host, *headers] if host else [line, *headers]
    return b"\r\n".join((*lines, b"", body))


def post(*headers: bytes, body: bytes = b"hello", line: bytes = b"POST / HTTP/1.1") -> bytes:
    return ask(*headers, line=line, body=body)


def chunked(body: bytes) -> bytes:
    return post(CHUNKED, body=body)


NEXT = ask(line=b"GET /next HTTP/1.1")


def refused(status: int, **cases: bytes) -> list[Case]:
    """What follows on the same connection must not be answered, whatever it is."""
    return [Case(name.replace("_", " "), sent + NEXT, (status,)) for name, sent in cases.items()]


def answered(**cases: bytes) -> list[Case]:
    """And so must be what follows."""
    return [Case(name.replace("_", " "), sent + NEXT, (200, 200), stays=True) for name, sent in cases.items()]


LENGTHS = refused(
    400,
    length_and_chunked=post(FIVE, CHUNKED, body=b"0\r\n\r\n"),
    chunked_and_length=post(CHUNKED, FIVE, body=b"0\r\n\r\n"),
    two_lengths=post(FIVE, b"Content-Length: 6"),
    the_same_length_twice=post(FIVE, FIVE),
    length_list=post(b"Content-Length: 5, 6"),
    length_list_of_the_same=post(b"Content-Length: 5, 5"),
    length_with_plus=post(b"Content-Length: +5"),
    negative_length=post(b"Content-Length: -5"),
    negative_zero_length=post(b"Content-Length: -0", body=b""),
    octal_length=post(b"Content-Length: 0o5"),
    hexadecimal_length=post(b"Content-Length: 0x5"),
    length_with_a_space_inside=post(b"Content-Length: 1 5"),
    length_with_underscore=post(b"Content-Length: 1_5"),
    length_in_words=post(b"Content-Length: five"),
    length_with_a_fraction=post(b"Content-Length: 5.0"),
    empty_length=post(b"Content-Length:"),
    length_beyond_64_bits=post(b"Content-Length: 99999999999999999999999"),
    length_with_leading_zero=post(b"Content-Length: 05"),
    length_of_two_zeros=post(b"Content-Length: 00", body=b""),
    length_like_an_octal=post(b"Content-Length: 0200"),
    length_with_a_space_before_the_colon=post(b"Content-Length : 5"),
    length_with_an_underscore_for_the_hyphen=post(b"Content_Length: 5"),
) + answered(
    length_with_spaces_around=post(b"Content-Length:   5  "),
    length_after_a_tab=post(b"Content-Length:\t5"),
    no_length=post(body=b""),
    length_of_zero=post(b"Content-Length: 0", body=b""),
    length_on_a_get=ask(FIVE, body=b"hello"),
    length_on_options=post(FIVE, line=b"OPTIONS / HTTP/1.1"),
)

ENCODINGS = refused(
    400,
    unknown_coding=post(b"Transfer-Encoding: xchunked"),
    unknown_coding_and_length=post(b"Transfer-Encoding: xchunked", FIVE),
    coding_before_chunked=post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    coding_after_chunked=post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    identity_coding=post(b"Transfer-Encoding: identity"),
    empty_coding=post(b"Transfer-Encoding:"),
    chunked_twice_in_a_list=post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    chunked_twice=post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    chunked_then_identity=post(CHUNKED, b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    comma_before_chunked=post(b"Transfer-Encoding: ,chunked", body=b"0\r\n\r\n"),
    comma_after_chunked=post(b"Transfer-Encoding: chunked,", body=b"0\r\n\r\n"),
    chunked_with_parameters=post(b"Transfer-Encoding: chunked;q=1", body=b"0\r\n\r\n"),
    chunked_in_quotes=post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    vertical_tab_before_chunked=post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    form_feed_before_chunked=post(b"Transfer-Encoding: \x0cchunked", body=b"0\r\n\r\n"),
    nul_in_chunked=post(b"Transfer-Encoding: chu\x00nked", body=b"0\r\n\r\n"),
    chunked_on_a_folded_line=post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    chunked_with_a_space_before_the_colon=post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    chunked_with_an_underscore_for_the_hyphen=post(b"Transfer_Encoding: chunked", body=b"0\r\n\r\n"),
    chunked_in_http_10=post(CHUNKED, line=b"POST / HTTP/1.0", body=b"0\r\n\r\n"),
) + answered(
    chunked_in_capitals=post(b"TRANSFER-ENCODING: CHUNKED", body=b"0\r\n\r\n"),
    chunked_after_a_tab=post(b"Transfer-Encoding:\tchunked", body=b"0\r\n\r\n"),
    chunked_with_a_space_behind=post(b"Transfer-Encoding: chunked ", body=b"0\r\n\r\n"),
)

CHUNKS = refused(
    400,
    chunk_size_with_a_prefix=chunked(b"0x5\r\nhello\r\n0\r\n\r\n"),
    chunk_size_with_a_minus=chunked(b"-5\r\nhello\r\n0\r\n\r\n"),
    chunk_size_with_an_underscore=chunked(b"1_0\r\nhello\r\n0\r\n\r\n"),
    chunk_size_after_a_space=chunked(b" 5\r\nhello\r\n0\r\n\r\n"),
    chunk_size_before_a_space=chunked(b"5 \r\nhello\r\n0\r\n\r\n"),
    chunk_size_beyond_64_bits=chunked(b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    no_chunk_size=chunked(b"\r\nhello\r\n0\r\n\r\n"),
    letters_for_a_chunk_size=chunked(b"xyz\r\nhello\r\n0\r\n\r\n"),
    chunk_shorter_than_its_size=chunked(b"5\r\nhell\r\n0\r\n\r\n"),
    chunk_longer_than_its_size=chunked(b"5\r\nhello!!\r\n0\r\n\r\n"),
    no_line_end_after_a_chunk=chunked(b"5\r\nhello0\r\n\r\n"),
    lf_after_a_chunk_size=chunked(b"5\nhello\r\n0\r\n\r\n"),
    cr_after_a_chunk_size=chunked(b"5\rhello\r\n0\r\n\r\n"),
    lf_after_a_chunk=chunked(b"5\r\nhello\n0\r\n\r\n"),
    lf_after_the_trailers=chunked(b"5\r\nhello\r\n0\r\n\n"),
    semicolon_and_no_extension=chunked(b"5;\r\nhello\r\n0\r\n\r\n"),
    nul_in_an_extension=chunked(b"5;a\x00\r\nhello\r\n0\r\n\r\n"),
    cr_in_an_extension=chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    lf_in_an_extension=chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    line_end_in_a_quoted_extension=chunked(b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n'),
    length_among_the_trailers=chunked(b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n"),
    folded_trailer=chunked(b"5\r\nhello\r\n0\r\n X: 1\r\n\r\n"),
    very_long_extension=chunked(b"5;a=" + b"b" * 65536 + b"\r\nhello\r\n0\r\n\r\n"),
    many_extensions=chunked(b"1;abcdefghij=klmnopqrst\r\na\r\n" * 2000 + b"0\r\n\r\n"),
    a_flood_of_tiny_chunks=chunked(b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n"),
    very_many_trailers=chunked(b"0\r\n" + b"X-T: 1\r\n" * 5000 + b"\r\n"),
) + answered(
    several_chunks=chunked(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
    no_chunk=chunked(b"0\r\n\r\n"),
    chunk_size_in_capitals=chunked(b"A\r\nhellohello\r\n0\r\n\r\n"),
    chunk_with_an_extension=chunked(b'5;a=b;c="d"\r\nhello\r\n0\r\n\r\n'),
    trailers=chunked(b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"),
    host_among_the_trailers=chunked(b"5\r\nhello\r\n0\r\nHost: evil\r\nHost: worse\r\n\r\n"),
)

LINES = refused(
    400,
    lf_after_the_request_line=b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    lf_after_a_header=b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    lf_at_the_end=b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    only_lf=b"GET / HTTP/1.1\nHost: a\n\n",
    only_cr=b"GET / HTTP/1.1\rHost: a\r\r",
    folded_header=ask(b"X: 1\r\n 2"),
    folded_header_by_tab=ask(b"X: 1\r\n\t2"),
    space_before_the_first_header=ask(host=b" Host: a"),
    blank_line_of_a_space=b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
    space_before_the_colon=ask(b"X : y"),
    tab_in_a_name=ask(b"X\tY: z"),
    brackets_in_a_name=ask(b"X[y]: z"),
    letters_beyond_ascii_in_a_name=ask(b"X\xff: z"),
    empty_name=ask(b": z"),
    no_colon=ask(b"nothing"),
    nul_in_a_value=ask(b"X: a\x00b"),
    control_character_in_a_value=ask(b"X: a\x01b"),
    delete_in_a_value=ask(b"X: a\x7fb"),
    cr_in_a_value=ask(b"X: a\rb"),
    two_hosts=ask(b"Host: b"),
    the_same_host_twice=ask(HOST),
    no_host=ask(host=b""),
    empty_host=ask(host=b"Host:"),
    list_of_hosts=ask(host=b"Host: a, b"),
    host_with_a_user=ask(host=b"Host: me@a"),
    host_with_a_path=ask(host=b"Host: a/b"),
    host_with_a_query=ask(host=b"Host: a/health?x="),
    host_with_letters_for_a_port=ask(host=b"Host: a:b"),
    host_with_two_ports=ask(host=b"Host: a:1:2"),
    host_with_an_open_bracket=ask(host=b"Host: [::1"),
    host_beyond_ascii=ask(host=b"Host: \xc3\xa4"),
    nothing_but_spaces=b"   \r\n\r\n",
    a_space_first=b" " + ask(),
    binary=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    nul_bytes=bytes(100),
) + answered(
    empty_lines_first=b"\r\n\r\n" + ask(),
    letters_beyond_ascii_in_a_value=ask(b"X: \xff"),
    empty_value=ask(b"X:"),
    host_with_a_port=ask(host=b"Host: a.example:8000"),
    host_by_its_address=ask(host=b"Host: 127.0.0.1:80"),
    host_by_its_v6_address=ask(host=b"Host: [::1]:80"),
)

REQUEST_LINES = refused(
    400,
    no_version=b"GET /\r\n\r\n",
    http_09=ask(line=b"GET / HTTP/0.9"),
    http_12=ask(line=b"GET / HTTP/1.2"),
    http_20=ask(line=b"GET / HTTP/2.0"),
    http_99=ask(line=b"GET / HTTP/9.9"),
    version_without_a_minor=ask(line=b"GET / HTTP/1"),
    version_with_zeros=ask(line=b"GET / HTTP/01.01"),
    version_in_small_letters=ask(line=b"GET / http/1.1"),
    version_with_a_space=ask(line=b"GET / HTTP/ 1.1"),
    space_behind_the_version=ask(line=b"GET / HTTP/1.1 "),
    another_protocol=ask(line=b"GET / SIP/2.0"),
    no_target=ask(line=b"GET HTTP/1.1"),
    tabs_for_spaces=ask(line=b"GET\t/\tHTTP/1.1"),
    space_in_the_target=ask(line=b"GET /a b HTTP/1.1"),
    fragment=ask(line=b"GET /a#b HTTP/1.1"),
    nul_in_the_target=ask(line=b"GET /a\x00b HTTP/1.1"),
    letters_beyond_ascii_in_the_target=ask(line=b"GET /\xc3\xa4 HTTP/1.1"),
    overlong_utf8_in_the_target=ask(line=b"GET /\xc0\xaf HTTP/1.1"),
    encoded_nul=ask(line=b"GET /a%00b HTTP/1.1"),
    encoded_line_end=ask(line=b"GET /a%0d%0aX:%20y HTTP/1.1"),
    encoded_overlong_utf8=ask(line=b"GET /%c0%af HTTP/1.1"),
    backslash_first=ask(line=b"GET \\a HTTP/1.1"),
    path_without_a_slash=ask(line=b"GET a HTTP/1.1"),
    asterisk_for_a_get=ask(line=b"GET * HTTP/1.1"),
    unknown_scheme=ask(line=b"GET ftp://a/ HTTP/1.1"),
    user_in_the_target=ask(line=b"GET http://me@a/ HTTP/1.1"),
    another_host_in_the_target=ask(line=b"GET http://b/ HTTP/1.1"),
    connect=ask(line=b"CONNECT a:443 HTTP/1.1"),
    unknown_method=ask(line=b"FETCH / HTTP/1.1"),
    method_in_small_letters=ask(line=b"get / HTTP/1.1"),
    very_long_method=ask(line=b"A" * 3000 + b" / HTTP/1.1"),
    preface_of_http_2=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
) + answered(
    whole_address_as_the_target=ask(line=b"GET http://a/b?c HTTP/1.1"),
    whole_address_without_a_path=ask(line=b"GET HTTP://A?c HTTP/1.1"),
    asterisk_for_options=ask(line=b"OPTIONS * HTTP/1.1"),
    two_slashes=ask(line=b"GET //evil/a HTTP/1.1"),
    encoded_letters=ask(line=b"GET /%C3%A4%2F HTTP/1.1"),
    trace=ask(line=b"TRACE / HTTP/1.1"),
    method_of_webdav=ask(line=b"PROPFIND / HTTP/1.1"),
    upgrade_to_http_2=post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA", FIVE),
    upgrade_in_chunks=post(b"Connection: upgrade", b"Upgrade: x", CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"),
    upgrade_to_websocket=ask(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    upgrade_that_connection_does_not_name=post(b"Upgrade: h2c", FIVE),
)

LIMITS = (
    refused(
        413,
        body_declared_too_large=post(b"Content-Length: 20001"),
        body_declared_huge=post(b"Content-Length: 18446744073709551615"),
        body_of_chunks_too_large=chunked(b"1000\r\n" + b"a" * 4096 + b"\r\n4000\r\n" + b"a" * 16384 + b"\r\n"),
    )
    + refused(414, target_too_long=ask(line=b"GET /" + b"a" * 512 + b" HTTP/1.1"))
    + refused(414, target_much_too_long=ask(line=b"GET /" + b"a" * 100_000 + b" HTTP/1.1"))
    + refused(415, compressed_body=post(b"Content-Encoding: gzip", FIVE))
    + refused(417, unknown_expectation=post(b"Expect: a-miracle", FIVE))
    + refused(
        431,
        header_too_large=ask(b"X: " + b"a" * 4096),
        header_much_too_large=ask(b"X: " + b"a" * 1_000_000),
        name_too_large=ask(b"a" * 5000 + b": x"),
        too_many_headers=ask(*(b"X-%d: y" % number for number in range(20))),
        very_many_headers=ask(*(b"X: y" for _ in range(50_000))),
    )
    + refused(431, endless_empty_lines=b"\r\n" * 100_000)
    + answered(
        largest_body=post(b"Content-Length: 20000", body=b"a" * 20_000),
        largest_body_in_chunks=chunked(b"4E20\r\n" + b"a" * 20_000 + b"\r\n0\r\n\r\n"),
        longest_target=ask(line=b"GET /" + b"a" * 511 + b" HTTP/1.1"),
        most_headers=ask(*(b"X-%d: y" % number for number in range(19))),
        body_that_is_not_compressed=post(b"Content-Encoding: identity", FIVE),
        expectation_whose_body_is_here=post(b"Expect: 100-continue", FIVE),
    )
)

ORDER = [
    Case("three at once", NEXT * 3, (200, 200, 200), stays=True),
    Case("a right one before a wrong one", NEXT + ask(host=b"") + NEXT, (200, 400)),
    Case("close is obeyed", ask(b"Connection: close") + NEXT, (200,)),
    Case("http 1.0 is closed", ask(line=b"GET / HTTP/1.0", host=b"") + NEXT, (200,)),
    Case("http 1.0 that would stay is closed", ask(b"Connection: keep-alive", line=b"GET / HTTP/1.0") + NEXT, (200,)),
    Case("http 1.0 with a host", ask(line=b"GET / HTTP/1.0"), (200,)),
    Case("http 1.0 may not ask for our word", post(b"Expect: 100-continue", FIVE, line=b"POST / HTTP/1.0"), (200,)),
]

CASES = [*LENGTHS, *ENCODINGS, *CHUNKS, *LINES, *REQUEST_LINES, *LIMITS, *ORDER]

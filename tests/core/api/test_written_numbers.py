"""Numbers, tables and texts as Java, pandas, R and Excel write them: over V2, MLflow's JSON and CSV alike."""

import base64
import json
import math
import zlib
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pilotlight.api import mlflow, v2, written_numbers
from pilotlight.api.compression import decompress_body
from pilotlight.contracts.manifest import Datatype, Manifest, ManifestFile, Standardization, TensorSpec
from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.errors import InvalidInputError, PilotlightError, UnsupportedTypeError
from pilotlight.registry.registry import build_manifest
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from tests import fakes

JSON, CSV = {"content-type": "application/json"}, {"content-type": "text/csv"}
FORMS = ("v2", "v2 nested", "inputs", "records", "split", "csv")
MAX_FP32 = float(np.finfo(np.float32).max)


def manifest(datatype: Datatype, *shape: int | str) -> Manifest:
    draft = fakes.draft(inputs=(TensorSpec("x", datatype, shape or ("rows",)),))
    return build_manifest(draft, (ManifestFile("model.onnx", 1, "0" * 64),))


def send(form: str, literal: str, datatype: Datatype) -> Array:
    """The one value of a model's input, from a request in which it is written like this."""
    model = manifest(datatype)
    if form == "csv":
        return mlflow.decode_request(f"x\n{literal}\n".encode(), CSV, model)["x"]
    bodies = {
        "inputs": f'{{"inputs": {{"x": [{literal}]}}}}',
        "records": f'{{"dataframe_records": [{{"x": {literal}}}]}}',
        "split": f'{{"dataframe_split": {{"columns": ["x"], "index": [0], "data": [[{literal}]]}}}}',
    }
    if form in bodies:
        return mlflow.decode_request(bodies[form].encode(), JSON, model)["x"]
    data = f"[[{literal}]]" if form == "v2 nested" else f"[{literal}]"
    shape = [1, 1] if form == "v2 nested" else [1]
    body = f'{{"inputs": [{{"name": "x", "shape": {shape}, "datatype": "{datatype}", "data": {data}}}]}}'
    return v2.decode_infer_request(body.encode(), {}, model).tensors["x"].reshape(-1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("datatype", "literal", "value"),
    [
        ("FP32", "3.4028235e+38", MAX_FP32),
        ("FP32", "3.4028235E38", MAX_FP32),
        ("FP32", "-3.4028235e+38", -MAX_FP32),
        ("FP32", "340282350000000000000000000000000000000", MAX_FP32),
        ("FP32", "3.4028235677973362e+38", MAX_FP32),
        ("FP32", "1.4e-45", 1.401298464324817e-45),
        ("FP32", "1e-46", 0.0),
        ("FP32", "1e-400", 0.0),
        ("FP32", "-0.0", -0.0),
        ("FP64", "1.7976931348623157e308", 1.7976931348623157e308),
        ("FP64", "5e-324", 5e-324),
        ("FP64", "-0.0", -0.0),
        ("INT64", "3.0", 3),
        ("INT64", "-1E2", -100),
        ("INT64", "9223372036854775807", 2**63 - 1),
        ("INT64", "9.223372036854775807e18", 2**63 - 1),
        ("INT64", "9223372036854775807.0", 2**63 - 1),
        ("INT64", "-9.223372036854775808E18", -(2**63)),
        ("INT64", "9007199254740993.0", 2**53 + 1),
        ("UINT64", "18446744073709551615", 2**64 - 1),
        ("UINT64", "1.8446744073709551615e+19", 2**64 - 1),
        ("UINT64", "-0.0", 0),
        ("INT8", "-128.0", -128),
        ("UINT8", "2.55e2", 255),
        ("INT32", "2147483647.00", 2**31 - 1),
        ("BOOL", "1", True),
        ("BOOL", "0", False),
        ("BOOL", "1.0", True),
        ("BOOL", "true", True),
    ],
)
def test_value_is_the_same_however_it_is_written(form: str, datatype: Datatype, literal: str, value: object) -> None:
    found = send(form, literal, datatype)
    assert found.dtype == NUMPY_DTYPES[datatype]
    assert found.tolist() == [value]
    assert not isinstance(value, float) or math.copysign(1, found[0]) == math.copysign(1, value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("datatype", "literal"),
    [
        ("FP32", "3.4028235677973366e+38"),
        ("FP32", "-3.5e38"),
        ("FP32", "1" * 40),
        ("FP32", "1" * 5000),
        ("FP64", "1e400"),
        ("FP64", "1e309"),
        ("INT64", "3.7"),
        ("INT64", "1e-400000"),
        ("INT64", "9223372036854775808"),
        ("INT64", "9.223372036854775808e18"),
        ("INT64", "-9.223372036854775809e18"),
        ("INT64", "1" * 5000),
        ("INT64", "9" * 4299 + ".0"),
        ("INT64", "1e999999"),
        ("UINT64", "1.8446744073709551616e19"),
        ("UINT64", "-1.0"),
        ("INT8", "128.0"),
        ("UINT8", "256"),
        ("BOOL", "2"),
        ("BOOL", "0.5"),
        ("BOOL", "-1"),
    ],
)
def test_another_value_is_refused_with_a_sentence(form: str, datatype: Datatype, literal: str) -> None:
    if literal == "1e-400000" and form in ("inputs", "records", "split", "v2", "v2 nested"):
        return  # JSON's readers round it to 0.0, which is the integer 0
    with pytest.raises(InvalidInputError) as raised:
        send(form, literal, datatype)
    assert datatype in str(raised.value) or "out of range" in str(raised.value)
    assert len(str(raised.value)) < 400
    assert str(raised.value).endswith(".")


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from(FORMS), st.data())
def test_each_float_comes_back_from_its_shortest_form(value: float, form: str, data: st.DataObject) -> None:
    """As numpy, Java and C print an FP32: with as many digits as tell it from its neighbours, and no more."""
    text = data.draw(st.sampled_from([str(np.float32(value)), repr(value), f"{value:.9e}", f"{value:.17e}"]))
    assert send(form, text, "FP32").tobytes() == np.float32(value).tobytes()


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(FORMS))
def test_fp32_takes_what_rounds_to_one_and_nothing_else(value: float, form: str) -> None:
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    if np.isfinite(rounded):
        assert send(form, repr(value), "FP32").tobytes() == rounded.tobytes()
    else:
        with pytest.raises(InvalidInputError, match="FP32"):
            send(form, repr(value), "FP32")


@given(
    st.integers(-(2**63) - 9, 2**64 + 9) | st.decimals(-1e20, 1e20, allow_nan=False, places=3),
    st.sampled_from(["INT8", "UINT8", "INT32", "UINT32", "INT64", "UINT64"]),
    st.sampled_from(FORMS),
    st.sampled_from(["{}", "{}.0", "{:e}"]),
)
def test_integers_are_exact_or_refused(number: int | Decimal, datatype: Datatype, form: str, spelling: str) -> None:
    text = spelling.format(Decimal(number)) if isinstance(number, int) or spelling == "{:e}" else str(number)
    limits = np.iinfo(NUMPY_DTYPES[datatype])
    if number == int(number) and limits.min <= number <= limits.max:
        assert send(form, text, datatype).tolist() == [int(number)]
    else:
        with pytest.raises(InvalidInputError):
            send(form, text, datatype)


@pytest.mark.parametrize(("number", "found"), [(65519.0, 65504.0), (65504, 65504.0), (6e-8, 5.960464477539063e-08)])
def test_half_precision_is_rounded_too(number: float, found: float) -> None:
    assert mlflow.decode_request(json.dumps({"inputs": [number]}).encode(), JSON, manifest("FP16"))["x"] == [found]
    with pytest.raises(InvalidInputError, match="beyond FP16"):
        mlflow.decode_request(b'{"inputs": [65520]}', JSON, manifest("FP16"))


@pytest.mark.parametrize("form", ["inputs", "records", "split"])
@pytest.mark.parametrize(
    ("datatype", "literal", "value"),
    [
        ("INT64", '"3"', 3),
        ("INT64", '" 3.0 "', 3),
        ("INT64", "true", 1),
        ("FP32", '"2.5"', 2.5),
        ("FP32", '"+.5"', 0.5),
        ("FP64", "true", 1.0),
        ("BOOL", '"1"', True),
        ("BYTES", "3", "3"),
        ("BYTES", "3.0", "3"),
        ("BYTES", "2.5", "2.5"),
        ("BYTES", "true", "True"),
        ("BYTES", '"2026-11-29"', "2026-11-29"),
    ],
)
def test_cell_of_json_means_what_it_means_in_csv(form: str, datatype: Datatype, literal: str, value: object) -> None:
    assert send(form, literal, datatype).tolist() == [value]


@pytest.mark.parametrize("form", ["inputs", "records", "split"])
@pytest.mark.parametrize("literal", ["null", "NaN", '"NA"', '"NaN"', '""'])
def test_missing_number_is_nan_among_floats_alone(form: str, literal: str) -> None:
    assert np.isnan(send(form, literal, "FP32")).tolist() == [True]
    with pytest.raises(InvalidInputError, match="INT64 has no missing value"):
        send(form, literal, "INT64")


@pytest.mark.parametrize(
    ("datatype", "literal", "says"),
    [
        ("FP32", '"yes"', "'yes' is no number"),
        ("FP32", '"1,5"', "'1,5' is no number: write a point for the comma"),
        ("FP32", '"Infinity"', "'Infinity' is no number"),
        ("FP32", '"2026-11-29"', "'2026-11-29' is no number"),
        ("FP32", '"1_000"', "'1_000' is no number"),
        ("FP32", '"\\u0661"', "'\u0661' is no number"),
        ("FP32", '{"a": 1}', "is no number"),
        ("INT64", "3.7", "3.7 is no integer"),
        ("BOOL", "3", "3 is beyond BOOL"),
        ("BYTES", "null", "None is no text"),
        ("BYTES", "[[1], 2]", "ragged"),
    ],
)
def test_cell_that_is_no_value_is_named(datatype: Datatype, literal: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'x' is not {datatype}: .*{says}"):
        send("inputs", literal, datatype)


def test_many_numbers_are_converted_at_once() -> None:
    rows = [[float(number), float(-number)] for number in range(100_000)]
    found = mlflow.decode_request(json.dumps({"inputs": rows}).encode(), JSON, manifest("INT32", "rows", 2))["x"]
    assert found.tolist() == [[number, -number] for number in range(100_000)]


def test_texts_are_converted_one_by_one_up_to_a_limit() -> None:
    with pytest.raises(written_numbers.CellError, match="more than 1,000,000 cells of texts"):
        written_numbers.convert_cells(["1"] * 1_000_001, "INT64")


ROWS: list[list[Any]] = [[1.5, 3, True], [None, 4, False]]  # as pandas writes a data frame
EXPECTED = np.array([[1.5, 3, 1], [np.nan, 4, 0]], np.float32)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["a", "b", "c"], "index": [0, 1], "data": ROWS}},
        {"dataframe_records": [dict(zip("abc", row, strict=True)) for row in ROWS]},
        {"dataframe_records": [{"a": 1.5, "b": 3, "c": True}, {"c": False, "b": 4}]},  # as R's jsonlite leaves out NA
        {"dataframe_records": [{"b": 3, "c": 1, "a": 1.5}, {"c": "0", "a": "NA", "b": "4"}]},
        {"instances": [[1.5, 3, 1], ["NA", 4, 0]]},
        {"inputs": ROWS},
    ],
)
def test_data_frames_of_pandas_and_r(body: object) -> None:
    found = mlflow.decode_request(json.dumps(body).encode(), JSON, build_table_model())["x"]
    np.testing.assert_array_equal(found, EXPECTED)


def build_table_model() -> Manifest:
    scaling = Standardization(("a", "b", "c"), (0.0,) * 3, (1.0,) * 3)
    draft = replace(fakes.draft(inputs=(TensorSpec("x", "FP32", ("rows", 3)),)), input_standardization=scaling)
    return build_manifest(draft, (ManifestFile("model.onnx", 1, "0" * 64),))


@pytest.mark.parametrize(
    "text",
    [
        b",a,b,c\n0,1.5,3,True\n1,,4,False\n",  # pandas' to_csv
        b"a,b,c\n1.5,3,True\n,4,False\n",  # with index=False
        b'"a","b","c"\r\n1.5,3,"True"\r\n"NA",4,"False"\r\n',  # and quoting=csv.QUOTE_NONNUMERIC
        b'"","a","b","c"\n"1",1.5,3,TRUE\n"2",NA,4,FALSE\n',  # R's write.csv
        b'"a","b","c"\n"1",1.5,3,TRUE\n"2",NA,4,FALSE\n',  # R's write.table(sep = ",")
        b"\xef\xbb\xbfc,a,b\r\nTRUE,1.5,3\r\nFALSE,,4\r\n\r\n \r\n",  # Excel's CSV UTF-8
        "a,b,c\n1.5,3,True\n,4,False\n".encode("utf-16"),
        b"a,b,c,\n1.5,3,true,\n,4,false,\n",
        b"a,b,c\n1.5,3,true,\n,4,false,\n",
        b"a,b,c\n+1.5,3.,1\n#N/A,4.0,0",
        b"\n\r\na,b,c\n1.5,3,1\n\n,4,0\n",  # as some editors leave blank lines
        b"sep=,\r\na,b,c\r\n1.5,3,1\r\n,4,0\r\n",  # for Excel
    ],
)
def test_tables_of_excel_pandas_and_r(text: bytes) -> None:
    found = mlflow.decode_request(text, CSV, build_table_model())["x"]
    np.testing.assert_array_equal(found, EXPECTED)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a;b;c\r\n1,5;3;1\r\n", "one column, 'a;b;c', with semicolons in it: separate columns by commas"),
        (b"a\tb\tc\n1.5\t3\t1\n", "with tabs in it"),
        (b'a,b,c\n"1,5",3,1\n', "'1,5' is no number: write a point for the comma"),
        (b'"";"a";"b"\n"1";1,5;2\n', "with semicolons in it"),  # R's write.csv2
        (b"sep=;\r\na;b;c\r\n1,5;3;1\r\n", "'a;b;c', with semicolons in it"),
        ("a,b,c\n1,2,3\n".encode("utf-16-le"), "null characters, as UTF-16 without a byte order mark has"),
        (b"a,b,c\n1,2\n", "Row 0 has 2 values, but there are 3 columns"),
        (b"a,b,c\n1,2,3,4\n1,2,3\n", "Row 0 has 4 values"),
    ],
)
def test_what_a_table_lacks_is_told(text: bytes, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        mlflow.decode_request(text, CSV, build_table_model())


def test_a_first_line_of_numbers_is_no_names() -> None:
    """The record in it would be lost, and the others answered as if there had been no such."""
    for text in (b"1,2,3\n4,5,6\n", b"5.1,3.5,1.4\n4.9,3.0,1.4\n", b"-1, 0,1e3\n4,5,6"):
        with pytest.raises(InvalidInputError, match="put a line of names before it"):
            mlflow.decode_request(text, CSV, manifest("FP32", "rows", 3))
    found = mlflow.decode_request(b"0,1,2\n4,5,6\n", CSV, manifest("FP32", "rows", 3))["x"]  # pandas' own names
    assert found.tolist() == [[4, 5, 6]]
    scaling = Standardization(("2020", "2021"), (0.0,) * 2, (1.0,) * 2)
    draft = replace(fakes.draft(inputs=(TensorSpec("x", "FP32", ("rows", 2)),)), input_standardization=scaling)
    model = build_manifest(draft, (ManifestFile("model.onnx", 1, "0" * 64),))
    assert mlflow.decode_request(b"2021,2020\n4,5\n", CSV, model)["x"].tolist() == [[5, 4]]


def test_a_comma_behind_each_line_is_no_column() -> None:
    found = mlflow.decode_request(b"a,b,c,\n1,2,3,\n4,5,6,\n", CSV, manifest("FP32", "rows", 3))["x"]
    assert found.tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(InvalidInputError, match=r"is no number"):
        mlflow.decode_request(b"a,b,\n1,2,x\n", CSV, manifest("FP32", "rows", 3))


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_a_cell_may_be_as_long_as_a_body(size: int) -> None:
    text = "é" + "x" * size
    found = mlflow.decode_request(f'y,z\n"{text}",b\n'.encode(), CSV, manifest("BYTES", "rows", 2))["x"]
    assert found.tolist() == [[text, "b"]]


@pytest.mark.parametrize(
    ("shape", "body", "found"),
    [
        ((), 5, 5.0),
        ((), [5], 5.0),
        ((), {"x": 5}, 5.0),
        ((), {"x": [5]}, 5.0),
        (("rows",), 5, [5.0]),
        (("rows",), {"x": "5"}, [5.0]),
        (("rows", 1), 5, [[5.0]]),
        (("rows", 1), {"x": True}, [[1.0]]),
    ],
)
def test_a_value_without_dimensions(shape: tuple[int | str, ...], body: object, found: object) -> None:
    spec = TensorSpec("x", "FP32", shape)
    model = build_manifest(fakes.draft(inputs=(spec,)), (ManifestFile("model.onnx", 1, "0" * 64),))
    assert mlflow.decode_request(json.dumps({"inputs": body}).encode(), JSON, model)["x"].tolist() == found


@pytest.mark.parametrize(("data", "datatype"), [("5", "FP32"), ("[5]", "FP32"), ("5.0", "INT64"), ("1", "BOOL")])
def test_v2_tensor_without_dimensions(data: str, datatype: Datatype) -> None:
    model = build_manifest(
        fakes.draft(inputs=(TensorSpec("x", datatype, ()),)), (ManifestFile("model.onnx", 1, "0" * 64),)
    )
    body = f'{{"inputs": [{{"name": "x", "shape": [], "datatype": "{datatype}", "data": {data}}}]}}'.encode()
    found = v2.decode_infer_request(body, {}, model).tensors["x"]
    assert (found.shape, found.dtype, float(found)) == ((), NUMPY_DTYPES[datatype], 5.0 if datatype != "BOOL" else 1.0)


def test_a_text_may_be_written_as_a_number() -> None:
    model = fakes.stepped(
        TextPreprocessing(tokenizer="tokenizer.json"),
        of=((TensorSpec("x", "INT64", ("batch", 2)),), fakes.ROW[1]),
    )
    assert mlflow.decode_request(b'{"inputs": {"text": [2026, "a"]}}', JSON, model)["text"].tolist() == ["2026", "a"]


def test_texts_may_be_in_base64_if_they_say_so() -> None:
    def send(data: list[str], **parameters: str) -> list[str]:
        tensor = {"name": "x", "shape": [len(data)], "datatype": "BYTES", "data": data, "parameters": parameters}
        body = json.dumps({"inputs": [tensor]}).encode()
        return list(v2.decode_infer_request(body, {}, manifest("BYTES")).tensors["x"])

    encoded = base64.b64encode("žluť".encode()).decode()
    assert send([encoded, "YQ"], content_type="base64") == ["žluť", "a"]
    assert send([encoded]) == send([encoded], content_type="str") == [encoded]
    for wrong in ("?", "/w=="):
        with pytest.raises(InvalidInputError, match="Input 'x': element 1 is no text in base64"):
            send(["YQ==", wrong], content_type="base64")


TEXT = '{"inputs": ["žluť"]}'


@pytest.mark.parametrize(
    ("content_type", "codec"),
    [
        ("", "utf-8"),
        ("application/json", "utf-8-sig"),
        ('application/json; charset="UTF-8"', "utf-8"),
        ("application/json;odata=verbose;Charset=utf8", "utf-8-sig"),
        ("application/vnd.api+json", "utf-8"),
        ("Text/JSON ; charset = utf-8", "utf-8"),
        ("application/json; charset=utf-16", "utf-16"),
        ("application/json; charset=UTF-16LE", "utf-16-le"),
        ("application/json; charset=utf-16be", "utf-16-be"),
        ("application/json", "utf-16"),
        ("application/json; charset=utf-32", "utf-32"),
    ],
)
def test_bodies_are_read_as_they_are_declared(content_type: str, codec: str) -> None:
    headers, model = {"content-type": content_type}, manifest("BYTES")
    assert mlflow.decode_request(TEXT.encode(codec), headers, model)["x"].tolist() == ["žluť"]
    body = '{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["žluť"]}]}'
    assert v2.decode_infer_request(body.encode(codec), headers, model).tensors["x"].tolist() == ["žluť"]


@pytest.mark.parametrize("charset", ["iso-8859-1", "latin1", "windows-1252"])
def test_declared_western_charsets(charset: str) -> None:
    headers, model = {"content-type": f"text/csv; charset={charset}"}, manifest("BYTES")
    for text in ("Müller", "Ã©"):  # the latter's bytes are UTF-8's of é too: what is declared counts
        assert mlflow.decode_request(f"x\n{text}\n".encode("cp1252"), headers, model)["x"].tolist() == [text]


@pytest.mark.parametrize(
    ("headers", "body", "error", "says"),
    [
        ({"content-type": "text/csv; charset=utf-7"}, b"x\n1\n", UnsupportedTypeError, "charset 'utf-7' is not served"),
        ({"content-type": "text/csv; charset=utf-16"}, b"x\n1", InvalidInputError, "not utf-16, as its mark"),
        ({"content-type": "application/json"}, b"\xff\xfe{", InvalidInputError, "not utf-16, as its mark"),
        ({"content-type": "text/csv"}, b"x\nM\xfcller\n", InvalidInputError, "not CSV in utf-8"),
        ({"content-type": "application/xml"}, b"{}", UnsupportedTypeError, "use application/json or text/csv"),
    ],
)
def test_other_bytes_are_refused(headers: dict[str, str], body: bytes, error: type[PilotlightError], says: str) -> None:
    with pytest.raises(error, match=says):
        mlflow.decode_request(body, headers, manifest("BYTES"))


@given(st.binary(max_size=40), st.sampled_from(["", "utf-16", "utf-32", "latin-1", "utf-8", "x"]))
def test_any_bytes_of_any_charset_are_refused_in_our_words(body: bytes, charset: str) -> None:
    for kind in ("application/json", "text/csv"):
        try:
            mlflow.decode_request(body, {"content-type": f"{kind}; charset={charset}"}, manifest("FP32"))
        except PilotlightError:
            continue


def test_deflate_with_and_without_its_header() -> None:
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert decompress_body(raw.compress(b"abc" * 99) + raw.flush(), "deflate") == b"abc" * 99
    assert decompress_body(zlib.compress(b"abc" * 99), "deflate") == b"abc" * 99
    with pytest.raises(InvalidInputError, match="not deflate"):
        decompress_body(b"plain text", "deflate")

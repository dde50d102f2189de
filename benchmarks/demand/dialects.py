"""How each dialect's queries can be run without its warehouse: an engine loads a log and gives back what a query returned, as CSV.

What a run proves, which is less where another program stands in, and whether it agrees is the business of `check_dialects.py`.
"""

import csv
import datetime
import io
import os

# How a row's columns are typed in each shape of the log.
WITH_ZONE, WITHOUT_ZONE = "with zone", "without zone"
KINDS = ["call", "time", "request", "input", "output", "status", "latency", "load"]


def as_csv(columns, rows):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def typed(shape, types):
    """(name, type) of each column; `types` has a type for a time with and without a zone, a whole number, a number, a text."""
    zoned, local, whole, number, text = types
    of = {"time": zoned if shape.time == WITH_ZONE else local, "status": whole if shape.codes else text, "latency": number}
    of["load"] = number if shape.codes else whole
    return [(name, of.get(kind, whole)) for kind, name in zip(KINDS, shape.columns)]


class Engine:
    def close(self):
        pass


class DuckDB(Engine):
    """DuckDB, and through a translator every dialect that the translator reads."""

    packages = ["duckdb", "pytz"]

    def __init__(self, log, shape, reads=None):
        import duckdb

        self.reads = reads
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'America/New_York'")
        columns = typed(shape, ["TIMESTAMPTZ", "TIMESTAMP", "BIGINT", "DOUBLE", "VARCHAR"])
        self.connection.execute("CREATE TABLE request_logs (" + ", ".join(f'"{name}" {kind}' for name, kind in columns) + ")")
        self.connection.execute(f"COPY request_logs FROM '{log}' (HEADER)")

    def run(self, text):
        if self.reads:
            import sqlglot

            [text] = sqlglot.transpile(text, read=self.reads, write="duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE)
        result = self.connection.execute(text)
        return as_csv([column[0] for column in result.description], result.fetchall())


class ClickHouse(Engine):
    packages = ["chdb", "chdb-core"]

    def __init__(self, log, shape):
        from chdb import session

        self.session = session.Session()
        # The zone stands in a type, and one without it means the session's.
        columns = typed(shape, ["DateTime64(3, 'America/New_York')", "DateTime64(3)", "UInt64", "Float64", "LowCardinality(String)"])
        described = ", ".join(f"`{name}` {kind}" for name, kind in columns)
        self.session.query("SET session_timezone = 'UTC'")
        self.session.query("SET date_time_input_format = 'best_effort'")
        self.session.query(f"CREATE TABLE request_logs ENGINE = Memory AS SELECT * FROM file('{log}', 'CSVWithNames', '{described.replace(chr(39), chr(39) * 2)}')")

    def run(self, text):
        return str(self.session.query(text, "CSVWithNames"))


class Spark(Engine):
    packages = ["pyspark"]
    session = None

    def __init__(self, log, shape):
        from pyspark.sql import SparkSession

        if Spark.session is None:
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "2")
            Spark.session = builder.config("spark.sql.session.timeZone", "America/New_York").config("spark.log.level", "ERROR").getOrCreate()
        columns = typed(shape, ["TIMESTAMP", "TIMESTAMP_NTZ", "BIGINT", "DOUBLE", "STRING"])
        described = ", ".join(f"`{name}` {kind}" for name, kind in columns)
        Spark.session.read.csv(str(log), header=True, schema=described).createOrReplaceTempView("request_logs")

    def run(self, text):
        result = Spark.session.sql(text)
        return as_csv(result.columns, result.collect())


class GoogleSQL(Engine):
    """Google's own analyser and reference evaluator of BigQuery's language, built to WebAssembly."""

    packages = ["zetasql"]

    def __init__(self, log, shape):
        from zetasql.api import CatalogBuilder, TableBuilder
        from zetasql.types import AnalyzerOptions, LanguageOptions, TableContent, TableData, TypeKind, ZetaSQLBuiltinFunctionOptions

        language = LanguageOptions.maximum_features()
        # BigQuery's own default.
        self.options = AnalyzerOptions(language_options=language, default_timezone="UTC")
        kinds = [TypeKind.TYPE_TIMESTAMP, TypeKind.TYPE_DATETIME, TypeKind.TYPE_INT64, TypeKind.TYPE_DOUBLE, TypeKind.TYPE_STRING]
        columns = typed(shape, kinds)
        table = TableBuilder("request_logs")
        for name, kind in columns:
            table.add_column(name, kind)
        builtin = ZetaSQLBuiltinFunctionOptions(language_options=language)
        self.catalog = CatalogBuilder("warehouse").add_table(table.build()).with_builtin_functions(builtin).build()
        cells = [self.cell(kind) for _, kind in columns]
        with open(log) as lines:
            rows = [[cell(text) for cell, text in zip(cells, row)] for row in list(csv.reader(lines))[1:]]
        self.content = {"request_logs": TableContent(table_data=TableData(row=[TableData.Row(cell=row) for row in rows]))}

    @staticmethod
    def cell(kind):
        from google.protobuf.timestamp_pb2 import Timestamp
        from zetasql.types import TypeKind, Value

        def instant(text):
            at = Timestamp()
            at.FromJsonString(text)
            return Value(timestamp_value=at)

        def local(text):
            at = datetime.datetime.fromisoformat(text)
            bits = at.year << 26 | at.month << 22 | at.day << 17 | at.hour << 12 | at.minute << 6 | at.second
            return Value(datetime_value=Value.Datetime(bit_field_datetime_seconds=bits, nanos=at.microsecond * 1000))

        return {
            TypeKind.TYPE_INT64: lambda text: Value(int64_value=int(text)),
            TypeKind.TYPE_DOUBLE: lambda text: Value(double_value=float(text)),
            TypeKind.TYPE_STRING: lambda text: Value(string_value=text),
            TypeKind.TYPE_TIMESTAMP: instant,
            TypeKind.TYPE_DATETIME: local,
        }[kind]

    def run(self, text):
        from zetasql.api import PreparedQuery

        asked = PreparedQuery.builder().set_sql(text).set_analyzer_options(self.options).set_catalog(self.catalog)
        with asked.set_table_content(self.content).prepare() as query:
            rows = query.execute().content.table_data.row
            values = [[next((value for value in vars(cell).values() if value is not None), None) for cell in row.cell] for row in rows]
            return as_csv([column.name for column in query.columns], values)


class Snowflake(Engine):
    packages = ["fakesnow", "sqlglot", "duckdb"]

    def __init__(self, log, shape):
        import fakesnow
        import snowflake.connector

        self.patched = fakesnow.patch()
        self.patched.__enter__()
        self.connection = snowflake.connector.connect(database="db1", schema="s1")
        self.cursor = self.connection.cursor()
        columns = typed(shape, ["TIMESTAMP_TZ", "TIMESTAMP_NTZ", "NUMBER", "FLOAT", "VARCHAR"])
        self.cursor.execute("CREATE TABLE request_logs (" + ", ".join(f'"{name.upper() if name == name.lower() else name}" {kind}' for name, kind in columns) + ")")
        with open(log) as lines:
            rows = list(csv.reader(lines))[1:]
        for at in range(0, len(rows), 1000):
            values = ", ".join("(" + ", ".join(f"'{cell}'" for cell in row) + ")" for row in rows[at : at + 1000])
            self.cursor.execute(f"INSERT INTO request_logs VALUES {values}")

    def run(self, text):
        self.cursor.execute(text)
        return as_csv([column[0] for column in self.cursor.description], self.cursor.fetchall())

    def close(self):
        self.patched.__exit__(None, None, None)

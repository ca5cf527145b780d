"""Each linter finds what is planted, and nothing where there is nothing."""

import os
import sys
import tempfile
import textwrap
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import build_files
import examples
import floors
import guards
import includes
import log
import paths
import references
import tree

HEADER = """\
#ifndef GRAPNEL_BASE_X_H_
#define GRAPNEL_BASE_X_H_
%s
#endif  // GRAPNEL_BASE_X_H_
"""

BUILD = """\
load("//tools/build_defs:cc.bzl", "grapnel_cc_library")

grapnel_cc_library(
    name = "x",
    srcs = ["x.cc"],
    hdrs = ["x.h"],
    visibility = ["%s"],
    deps = [%s],
)
"""


class LintTest(unittest.TestCase):

    def problems(self, check, contents):
        with tempfile.TemporaryDirectory() as root:
            for path, text in contents.items():
                path = os.path.join(root, path)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="utf-8") as f:
                    f.write(textwrap.dedent(text))
            return check(tree.Tree(root, contents))

    def assertClean(self, check, contents):
        self.assertEqual(self.problems(check, contents), [])

    def assertFinds(self, check, contents, *expected):
        """As many problems as are expected, in order, each with that in it."""
        found = self.problems(check, contents)
        self.assertEqual(len(found), len(expected), found)
        for problem, part in zip(found, expected):
            self.assertIn(part, problem)


class CodeTest(unittest.TestCase):

    def test_comments_and_strings_are_no_code(self):
        code = tree.code_of('a /* LOG( \n */ b // "x\n"CHECK(" c \'"\' d R"(\nEND)" e 1\'000 f')
        self.assertEqual(code.count("\n"), 3)
        for gone in ("LOG", "CHECK", "x", "END"):
            self.assertNotIn(gone, code)
        for kept in "abcdef":
            self.assertIn(kept, code)

    def test_includes_are_found(self):
        text = '// #include "no.h"\n#include "a/b.h"  // why\n#include <c>\n'
        self.assertEqual(tree.includes_of(text), [(2, "a/b.h"), (3, "c")])


class LogTest(LintTest):

    def test_clean(self):
        self.assertClean(log.check, {
            "io/a.cc": """
                #include "grapnel/base/log.h"
                // LOG(INFO) is LibTorch's.
                const char* kText = "CHECK(x)";
                void f() { GRAPNEL_LOG(INFO) << TORCH_CHECK_NOT; log_->exit(1); GRAPNEL_RET_CHECK(x); }
                """,
            "base/log.cc": "#include <glog/logging.h>\n",
            "io/a_test.cc": "TEST(A, B) { GRAPNEL_CHECK(x); std::cout << 1; }\n",
            "io/fake.cc": "void F() { std::abort(); }\n",
            "io/BUILD": """
                grapnel_cc_test(name = "a_test", srcs = ["a_test.cc"])
                grapnel_cc_library(name = "fake", testonly = True, srcs = ["fake.cc"])
                """,
            "base/log_test.cc": "#define LOG(x) x\n",
        })

    def test_glog_elsewhere(self):
        self.assertFinds(log.check, {"io/a.cc": "#include <glog/logging.h>\n"}, "io/a.cc:1: glog")

    def test_bare_names(self):
        self.assertFinds(log.check, {
            "io/a_test.cc": "LOG(INFO);\n\nCHECK_EQ(a, b);\nDCHECK(a);\nVLOG(1);\n",
        }, "io/a_test.cc:1: LOG", ":3: CHECK_EQ", ":4: DCHECK", ":5: VLOG")

    def test_library_that_ends_the_process(self):
        self.assertFinds(log.check, {
            "io/a.cc": "GRAPNEL_CHECK(a);\nGRAPNEL_LOG(FATAL) << 1;\nstd::abort();\nexit(1);\n",
        }, ":1:", ":2:", ":3:", ":4:")

    def test_library_that_prints(self):
        self.assertFinds(log.check, {"io/a.cc": "std::cout << 1;\nprintf(\"x\");\n"}, ":1:", ":2:")


class GuardsTest(LintTest):

    def test_clean(self):
        self.assertClean(guards.check, {"base/x.h": "// A.\n" + HEADER % "int x;"})

    def test_header_in_c(self):
        header = "/* A. */\n#ifndef GRAPNEL_X_H_\n#define GRAPNEL_X_H_\n#endif /* GRAPNEL_X_H_ */\n"
        self.assertClean(guards.check, {"capi/include/grapnel/x.h": header})
        self.assertFinds(guards.check, {"capi/include/grapnel/x.h": header.replace("/* GRAPNEL_X_H_ */", "")},
                         "must end")

    def test_wrong_name(self):
        self.assertFinds(guards.check, {"io/x.h": HEADER % ""}, "GRAPNEL_IO_X_H_")

    def test_unnamed_end(self):
        self.assertFinds(guards.check, {
            "base/x.h": "#ifndef GRAPNEL_BASE_X_H_\n#define GRAPNEL_BASE_X_H_\n#endif\n",
        }, "must end")

    def test_pragma_once(self):
        self.assertFinds(guards.check, {"base/x.h": "#pragma once\n"}, "must begin")


class PathsTest(LintTest):

    def test_clean(self):
        self.assertClean(paths.check, {
            "a.md": "See https://www.apache.org/licenses, examples/work/x and ~/root/x.\n",
            "a.sh": "GOPROXY=off go build\n",
            "tools/lint/paths.py": "packages.example",
        })

    def test_planted(self):
        self.assertFinds(paths.check, {
            "a.sh": "pip install --index-url x\ncurl https://files.packages.example/x\nGOPROXY=off,x go build\n",
            "b.cc": 'auto x = "/root/x";\n',
            "c.md": "see /work/y\n",
        }, "a.sh:1", "a.sh:2", "a.sh:3", "b.cc:1", "c.md:1")


class ReferencesTest(LintTest):

    FILES = {"docs/a.md": "", "io/env.h": ""}

    def test_clean(self):
        self.assertClean(references.check, dict(self.FILES, **{
            "README.md": "See [a](docs/a.md#part), [here](https://x.example/y.md), `io/env.h` and x/docs/z.md.\n",
            "io/x.cc": '// As grapnel/io/env.h and a.md say; io/x.pb.h is made.\nauto x = "docs/no.md";\n',
        }))

    def test_planted(self):
        self.assertFinds(references.check, dict(self.FILES, **{
            "README.md": "[a](docs/b.md)\n",
            "io/x.cc": "// As io/gone.h says.\n",
            "io/y.h": "int x;  // parity.md 5\n",
        }), "README.md:1: there is no docs/b.md", "io/x.cc:1: there is no io/gone.h",
                         "io/y.h:1: there is no parity.md")


class IncludesTest(LintTest):

    def tree(self, source="", header="", deps="", visibility="//:__subpackages__", **more):
        contents = {
            "base/BUILD": BUILD % (visibility, deps),
            "base/x.cc": '#include "grapnel/base/x.h"\n' + source,
            "base/x.h": HEADER % header,
            "io/BUILD": """
                grapnel_cc_library(name = "y", hdrs = ["y.h"])
                grapnel_cc_library(name = "all", deps = [":y"])
                grapnel_registered(name = "registered", srcs = ["r.cc"], hdrs = ["r.h"])
                grapnel_proto_library(name = "z_proto", srcs = ["z.proto"])
                """,
            "io/y.h": "", "io/r.h": "", "io/r.cc": '#include "grapnel/io/r.h"\n', "io/z.proto": "",
        }
        contents.update(more)
        return contents

    def test_clean(self):
        self.assertClean(includes.check, self.tree(
            source='#include <string>\n#include "absl/status/statusor.h"\n#include "grapnel/io/z.pb.h"\n'
                   '#include "ATen/ops/add_ops.h"\n',
            header='#include "grapnel/io/y.h"',
            deps='"//io:y", "//io:z_cc_proto", "@com_google_absl//absl/status:statusor", "@libtorch"'))

    def test_missing_dep(self):
        self.assertFinds(includes.check, self.tree(source='#include "grapnel/io/y.h"\n'),
                         'base/x.cc:2: "grapnel/io/y.h" needs //io:y')

    def test_missing_third_party_dep(self):
        self.assertFinds(includes.check, self.tree(
            source='#include "absl/strings/str_format.h"\n#include <xxhash.h>\n',
            deps='"@com_google_absl//absl/strings"'),
                         "absl/strings:str_format", "@grapnel_system//:xxhash", "includes nothing of")

    def test_own_header_not_first(self):
        tree = self.tree()
        tree["base/x.cc"] = '#include <string>\n#include "grapnel/base/x.h"\n'
        self.assertFinds(includes.check, tree, 'base/x.cc: must include "grapnel/base/x.h" first')

    def test_unused_dep(self):
        self.assertFinds(includes.check, self.tree(deps='"//io:y"'), "base/BUILD:3: //base:x includes nothing of //io:y")

    def test_deps_that_only_link_are_used(self):
        self.assertClean(includes.check, self.tree(deps='"//io:all", "//io:registered"'))

    def test_header_of_nobody(self):
        self.assertFinds(includes.check, self.tree(source='#include "grapnel/io/none.h"\n'), "no target has")

    def test_header_without_its_folder(self):
        c_test = {
            "io/c.c": '#include "grapnel/c.h"\n', "io/include/grapnel/c.h": "",
            "io/BUILD": """
                cc_library(name = "c_header", hdrs = ["include/grapnel/c.h"], strip_include_prefix = "include")
                cc_test(name = "c", srcs = ["c.c"], deps = [%s])
                """,
        }
        build = c_test["io/BUILD"]
        self.assertClean(includes.check, dict(c_test, **{"io/BUILD": build % '":c_header"'}))
        self.assertFinds(includes.check, dict(c_test, **{"io/BUILD": build % ""}),
                         'io/c.c:1: "grapnel/c.h" needs //io:c_header')

    def test_source_of_nobody(self):
        self.assertFinds(includes.check, self.tree(**{"io/lost.cc": ""}), "io/lost.cc: is in no target")

    def test_source_that_is_not_compiled_here(self):
        # A program of a user's, in a test's data.
        self.assertClean(includes.check, {
            "p/first.c": '#include "grapnel/grapnel.h"\n',
            "p/BUILD": 'filegroup(name = "first", testonly = True, srcs = ["first.c"])',
        })
        self.assertFinds(includes.check, {
            "p/first.c": '#include "grapnel/grapnel.h"\n',
            "p/BUILD": 'filegroup(name = "first", srcs = ["first.c"])',
        }, "first.c:1")

    def test_proto_imports(self):
        self.assertFinds(includes.check, self.tree(**{
            "io/z.proto": 'import "google/protobuf/any.proto";\n',
        }), "needs @com_google_protobuf//:any_proto")

    def test_included_twice(self):
        self.assertFinds(includes.check, self.tree(source='#include <string>\nint x;\n#include <string>\n'),
                         'base/x.cc:4: "string" is included in line 2 already')

    def test_operators_header(self):
        self.assertFinds(includes.check, self.tree(source='#include "ATen/ops/add.h"\n', deps='"@libtorch"'),
                         'base/x.cc:2: "ATen/ops/add.h" is expensive to compile')

    def test_public_header_with_libtorch(self):
        header = '#include "ATen/core/Tensor.h"\n#include "torch/torch.h"'
        deps = '"@libtorch"'
        self.assertFinds(includes.check, self.tree(header=header, deps=deps, visibility="//visibility:public"),
                         'base/x.h:4: a public header doesn\'t include "torch/torch.h"')
        self.assertClean(includes.check, self.tree(header=header, deps=deps))


class ExamplesTest(LintTest):

    FILES = {
        "tests/header_examples/BUILD": """
            _HEADERS = ["//io:x.h"]
            genrule(name = "examples", srcs = _HEADERS, outs = ["examples.inc"])
            """,
        "io/x.h": "// Example:\n//\n//   Open();\n",
    }

    def test_clean(self):
        self.assertClean(examples.check, dict(self.FILES, **{
            "io/y.h": "// Example: x.cc\n",
            "io/z.cc": "// Example:\n",
        }))

    def test_planted(self):
        self.assertFinds(examples.check, dict(self.FILES, **{
            "io/y.h": "class Y {\n  // Example:\n  //   Open();\n",
        }), "io/y.h: has an example, and isn't listed in tests/header_examples/BUILD")


class BuildFilesTest(LintTest):

    def test_globs_and_comprehensions(self):
        found = self.problems(build_files.all_targets, {
            "a/BUILD": """
                NAMES = ["x", "y"]
                package(default_visibility = ["//visibility:public"])
                some_rule(
                    name = "t",
                    srcs = glob(["*.cc"], exclude = ["b.cc"]),
                    deps = ["//p/" + n for n in NAMES] + select({"//conditions:default": [":u"]}),
                )
                """,
            "a/a.cc": "", "a/b.cc": "", "a/sub/BUILD": "", "a/sub/c.cc": "",
        })
        self.assertEqual([t.label for t in found], ["//a:t"])
        self.assertEqual(found[0].files("srcs"), ["a/a.cc"])
        self.assertEqual(found[0].deps, ["//p/x:x", "//p/y:y", "//a:u"])
        self.assertEqual(found[0].attributes["visibility"], ["//visibility:public"])

    def test_globs_below_folders(self):
        found = self.problems(build_files.all_targets, {
            "a/BUILD": """
                some_rule(name = "all", srcs = glob(["**/*.go"], exclude = ["tools/**"]))
                some_rule(name = "flat", srcs = glob(["*/*.go"]))
                """,
            "a/a.go": "", "a/b/c/d.go": "", "a/b/e.go": "", "a/tools/f/g.go": "", "a/b/h.c": "",
        })
        self.assertEqual(found[0].files("srcs"), ["a/a.go", "a/b/c/d.go", "a/b/e.go"])
        self.assertEqual(found[1].files("srcs"), ["a/b/e.go"])

    def test_labels(self):
        for label, expected in ((":x", "//p:x"), ("x", "//p:x"), ("//a/b", "//a/b:b"), ("//a:c", "//a:c"),
                                ("@r//a/b", "@r//a/b:b"), ("@r//:c", "@r//:c"), ("@r", "@r//:r")):
            self.assertEqual(build_files.normalize(label, "p"), expected)


class FloorsTest(unittest.TestCase):

    def test_each_floor_is_kept_from_all_above_and_beside(self):
        rules = dict(floors.floor_queries(["base", "io", "data", "loggers", "runner", "hooks", "tools"]))
        self.assertEqual(sorted(rules), [
            "base uses nothing of io, data, loggers, runner, hooks, tools",
            "data uses nothing of loggers, runner, hooks, tools",
            "hooks uses nothing of tools",
            "io uses nothing of data, loggers, runner, hooks, tools",
            "loggers uses nothing of data, runner, hooks, tools",
            "runner uses nothing of hooks, tools",
        ])
        self.assertIn("intersect (//hooks/... + //tools/...)", rules["runner uses nothing of hooks, tools"])

    def test_hooks(self):
        (_, query), = floors.hook_queries(["hooks/ema"])
        self.assertIn("(//hooks/... except //hooks/ema/...) + //runner:runner", query)


if __name__ == "__main__":
    unittest.main(verbosity=1)

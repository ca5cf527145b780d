#!/usr/bin/env python3
"""Tests of hooks_md.py."""

import unittest

import hooks_md

PROTO = """// About the file.

syntax = "proto3";

package grapnel.hooks.v1;

import "google/protobuf/any.proto";

// Does a thing.
//
// And says | so.
message ThingHookConfig {
  enum Kind {
    KIND_UNSPECIFIED = 0;
    // The first.
    ONE = 1;
  }

  // How often, and from where on. >= 1.
  // Default: 1.
  optional int64 interval = 1;
  optional int64 begin = 5;

  // One a time.
  oneof choice {
    // A part.
    Part part = 2;
  }
  repeated string names = 3;  // Of whom.

  map<string, string> pairs
      = 4;

  // Inside.
  message Part {
    // >= 0.
    optional double size = 1;
  }
}

message EmptyHookConfig {}
"""


class ParseTest(unittest.TestCase):

    def test_comments_belong_to_what_follows_them(self):
        thing, empty = hooks_md.parse(PROTO)
        self.assertEqual(thing.comment, ["Does a thing.", "And says | so."])
        self.assertEqual([(f.name, f.type_name, f.comment) for f in thing.fields], [
            ("interval", "int64", ["How often, and from where on. >= 1. Default: 1."]),
            ("begin", "int64", ["See `interval`."]),
            ("part", "Part", ["A part.", "One of `choice`. One a time."]),
            ("names", "repeated string", ["Of whom."]),
            ("pairs", "map<string, string>", []),
        ])
        kind, part = thing.blocks
        self.assertEqual([(f.name, f.comment) for f in kind.fields],
                         [("KIND_UNSPECIFIED", []), ("ONE", ["The first."])])
        self.assertEqual([f.name for f in part.fields], ["size"])
        self.assertEqual((empty.name, empty.comment, empty.fields), ("EmptyHookConfig", [], []))

    def test_unknown_syntax_is_an_error_with_its_line(self):
        for text, line in [("message A {\n  extensions 4 to 5;\n}\n", "x.proto:2"), ("}\n", "x.proto:1"),
                           ("message A {\n", "x.proto: ends inside")]:
            with self.assertRaisesRegex(ValueError, line):
                hooks_md.parse(text, "x.proto")


class RenderTest(unittest.TestCase):

    def test_slots_come_first_and_by_priority(self):
        config = ("message DefaultHooksConfig {\n  grapnel.hooks.v1.EmptyHookConfig nothing = 1;\n"
                  "  repeated string off = 2;\n}\n")
        slots = hooks_md.slots(config)
        self.assertEqual(slots, {"EmptyHookConfig": "nothing"})
        page = hooks_md.render(["grapnel.hooks.v1.ThingHookConfig\tthing\t//hooks/thing\t55\tSetup AfterRun\n",
                                "grapnel.hooks.v1.EmptyHookConfig\tempty\t//hooks/empty\t90\tBeforeRun\n"],
                               slots, {block.name: block for block in hooks_md.parse(PROTO)})
        self.assertIn("| [empty](#empty) | `//hooks/empty` | slot `nothing` | VERY_LOW 90 |\n"
                      "| [thing](#thing) | `//hooks/thing` | `[hooks/ThingHook]` | 55 |\n", page)
        self.assertIn("## thing\n\nDoes a thing.\n\nAnd says \\| so.\n\nActs at Setup, AfterRun.\n\n"
                      "| option | type | meaning |\n|---|---|---|\n"
                      "| `interval` | int64 | How often, and from where on. >= 1. Default: 1. |\n", page)
        self.assertIn("| `pairs` | map&lt;string, string> |  |\n\n`Kind`\n\n* `ONE`: The first.\n\n"
                      "`Part`: Inside.\n\n| option | type | meaning |\n|---|---|---|\n| `size` | double | >= 0. |\n",
                      page)


if __name__ == "__main__":
    unittest.main()

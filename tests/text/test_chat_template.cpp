// Chat templates against texts worked out by hand or by jinja2 (tests/oracle/test_chat_template.py compares the two on many
// more), and every construct that is refused.
#include <gmock/gmock.h>

#include "core/file.h"
#include "fixtures.h"
#include "text/chat_template.h"

namespace fathom::text {
namespace {

using ::testing::HasSubstr;

const std::vector<ChatMessage> kTalk = {{"system", " Be brief. "}, {"user", "Hi"}, {"assistant", "Hello!"}, {"user", "2+2?"}};

std::string render(const std::string& source, std::span<const ChatMessage> messages = kTalk, const ChatOptions& options = {}) {
  return ChatTemplate(source, "model").render(messages, options);
}

ChatOptions tokens() {
  ChatOptions o;
  o.bos_token = "<s>", o.eos_token = "</s>";
  return o;
}

std::string model(const std::string& name, std::span<const ChatMessage> messages = kTalk, const ChatOptions& options = tokens()) {
  return render(read_file(FATHOM_SOURCE_DIR "/tests/oracle/chat_templates/" + name + ".jinja", 1 << 20), messages, options);
}

TEST(ChatTemplate, Models) {
  const std::span<const ChatMessage> talk = kTalk, without_system = talk.subspan(1);
  EXPECT_EQ(model("smollm2", without_system.first(1)),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(model("chatml", talk.first(2)), "<|im_start|>system\n Be brief. <|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(model("llama2"), "<s>[INST] <<SYS>>\n Be brief. \n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] 2+2? [/INST]");
  EXPECT_EQ(model("llama3", talk.first(2)),
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(model("mistral1", without_system), "<s>[INST] Hi [/INST]Hello!</s>[INST] 2+2? [/INST]");
  EXPECT_EQ(model("mistral3"), "<s>[INST] Hi[/INST] Hello!</s>[INST]  Be brief. \n\n2+2?[/INST]");
  EXPECT_EQ(model("zephyr", talk.first(2)), "<|system|>\n Be brief. </s>\n<|user|>\nHi</s>\n<|assistant|>\n");
  EXPECT_EQ(model("gemma", without_system.first(2)), "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n<start_of_turn>model\n");
  ChatOptions thinking = tokens();
  thinking.variables.emplace_back("enable_thinking", false);
  const std::vector<ChatMessage> thought = {{"user", "a"}, {"assistant", "<think>\nhm\n</think>\n\nb"}, {"user", "c"}};
  EXPECT_EQ(model("qwen3", thought, thinking),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
}

TEST(ChatTemplate, Options) {
  ChatOptions o;
  o.add_generation_prompt = false;
  o.variables = {{"n", int64_t{3}}, {"name", std::string("Ann")}, {"tools", false}};
  EXPECT_EQ(render("{{ add_generation_prompt }} {{ n + 1 }} {{ name }} {{ tools }} {{ bos_token is defined }} {{ documents is none }}", {}, o), "False 4 Ann False False True");
  std::tm now{};
  now.tm_year = 124, now.tm_mon = 6, now.tm_mday = 26;
  o.now = now;
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y') }}", {}, o), "26 Jul 2024");
  EXPECT_THAT(error_of([] { render("{{ strftime_now('%d') }}"); }), HasSubstr("found strftime_now"));
}

TEST(ChatTemplate, BrokenTextIsReadAsReplaced) {
  const std::vector<ChatMessage> broken = {{"user", "a\xff\xc3z"}};
  EXPECT_EQ(render("{{ messages[0].content | length }}{{ messages[0].content }}", broken), "4a\ufffd\ufffdz");
}

struct Equal {
  const char *source, *text;
};

TEST(ChatTemplate, Constructs) {
  for (const auto& [source, text] : std::vector<Equal>{
           {"", ""},
           {"a\n", "a"},
           {"a\n\n", "a\n"},
           {"{{ none }}{{ true }}{{ -7 // 2 }}{{ -7 % 3 }}{{ missing }}", "NoneTrue-42"},
           {"{{ 'a' 'b' ~ 1 ~ none }}{{ 'x' * 3 }}{{ 2 * 3 + 4 - 1 }}", "ab1Nonexxx9"},
           {"{{ '\\x41\\u00e9\\n\\q' }}", "A\u00e9\n\\q"},
           {"{% if false %}a{% elif 1 > 2 %}b{% else %}c{% endif %}", "c"},
           {"{% for m in messages %}{{ loop.index }}{{ m.role[0] }}{% if not loop.last %},{% endif %}{% endfor %}", "1s,2u,3a,4u"},
           {"{% for m in messages if m.role == 'user' %}{{ loop.revindex }}{{ m['content'] }}{% else %}none{% endfor %}", "2Hi12+2?"},
           {"{% for x in nothing %}a{% else %}b{% endfor %}", "b"},
           {"{% for x in range(9) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}", "02"},
           {"{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "a1b2"},
           {"{% for x in 'a\u00e9' %}{{ loop.previtem }}{{ x }}{{ loop.nextitem }}|{% endfor %}", "a\u00e9|a\u00e9|"},
           {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}", "21"},
           {"{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"},
           {"{% set b %} x{{ 1 }} {% endset %}[{{ b }}]", "[ x1 ]"},
           {"{% generation %}{% set z = 1 %}{{ z }}{% endgeneration %}{{ z }}", "1"},
           {"{{ messages[1:] | length }}{{ messages[::-1][0].content }}{{ messages[-9] }}{{ 'abcd'[1:3] }}{{ 'abcd'[::-2] }}", "32+2?bcdb"},
           {"{{ 1 < 2 <= 2 }}{{ 1 == true }}{{ 'a' in 'cat' }}{{ 'x' not in ['x'] }}{{ [1, 'a'] == [1, 'a'] }}{{ 'role' in messages[0] }}", "TrueTrueTrueFalseTrueTrue"},
           {"{{ 'a' and '' or 'b' }}{{ not 1 }}{{ 'a' if 0 }}{{ 'a' if 0 else 'b' }}", "bFalseb"},
           {"{{ ' a ' | trim }}{{ 'xax' | trim('x') }}{{ 'aB' | upper }}{{ 'aB' | lower }}{{ 'aB' | capitalize }}", "aaABabAb"},
           {"{{ x | default('d') }}{{ '' | d('e', true) }}{{ [1, 'a'] | join('-') }}{{ 'aXbX' | replace('X', '', 1) }}", "de1-aabX"},
           {"{{ [1, 2] | first }}{{ [1, 2] | last }}{{ 'ab' | reverse }}{{ [3, 4] | reverse | list | tojson }}{{ -3 | abs }}{{ 5 | string }}", "12ba[4, 3]35"},
           {"{{ {'a': [1, none, true, '\"\\n\\x01'], 'b': {}} | tojson }}", "{\"a\": [1, null, true, \"\\\"\\n\\u0001\"], \"b\": {}}"},
           {"{{ [1, {'a': []}] | tojson(indent=1) }}", "[\n 1,\n {\n  \"a\": []\n }\n]"},
           {"{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(',') }}", "Hi,2+2?"},
           {"{{ [1, 2, 3] | reject('odd') | list | tojson }}{{ [0, 1] | select | first }}{{ [' a'] | map('trim') | join }}", "[2]1a"},
           {"{{ {'a': 1} | items | first | tojson }}{{ [] | first }}{{ 'a' | list | length }}", "[\"a\", 1]1"},
           {"{{ ' a b '.strip() }}{{ 'xa'.lstrip('x') }}{{ 'a\\n'.rstrip('\\n') }}{{ 'a,b'.split(',') | tojson }}{{ ' a  b '.split() | last }}", "a baa[\"a\", \"b\"]b"},
           {"{{ 'ab'.startswith('a') }}{{ 'ab'.endswith('a') }}{{ 'ab'.upper() }}{{ 'aa'.replace('a', 'b', 1) }}{{ '-'.join(['a', 'b']) }}", "TrueFalseABbaa-b"},
           {"{{ messages[0].get('x', 1) }}{{ messages[0].keys() | list | tojson }}{{ messages[1].values() | join('/') }}", "1[\"role\", \"content\"]user/Hi"},
           {"{{ 1 is odd }}{{ 4 is divisibleby 2 }}{{ 'a' is string }}{{ x is not defined }}{{ none is none }}{{ {} is mapping }}{{ 1 is number }}{{ true is boolean }}{{ true is integer }}",
            "TrueTrueTrueTrueTrueTrueTrueTrueFalse"},
           {"a  {%- if 1 -%}  b  {%- endif +%}\nc", "ab\nc"},
           {"  {% if 1 %}\n  b\n  {%+ endif %}\n{# c #}\nd", "  b\n  d"},
           {"{{ '}}' }}{% set x = '%}' %}{{ x }}{{ {'a': {'b': 1}}.a.b }}", "}}%}1"},
           {"{% if false %}{{ x | frobnicate }}{{ y.z.frob() }}{% endif %}ok", "ok"},
       })
    EXPECT_EQ(render(source), text) << source;
}

TEST(ChatTemplate, Refused) {
  for (const auto& [source, says] : std::vector<Equal>{
           {"{% macro f() %}{% endmacro %}", "model: line 1: found the statement {% macro %}, expected one of if, for, set"},
           {"\n\n{% include 'x' %}", "line 3: found the statement {% include %}"},
           {"{% raw %}{% endraw %}", "the statement {% raw %}"},
           {"a\n{{ 'x' | urlize }}", "line 2: found the filter urlize"},
           {"{{ 1 is callable }}", "the test callable"},
           {"{{ 'a'.format(1) }}", "the method format of a string"},
           {"{{ 'a'.__class__ }}", "the attribute __class__ of a string"},
           {"{{ messages.append(1) }}", "the method append of a list"},
           {"{{ messages[0].items }}", "the attribute items of a dictionary"},
           {"{{ lipsum() }}", "Jinja's lipsum"},
           {"{{ nothing() }}", "a call of an undefined value nothing"},
           {"{{ nothing.a }}", "the attribute a of an undefined value"},
           {"{{ nothing[0] }}", "an item of an undefined value"},
           {"{{ nothing + 'a' }}", "an undefined value + a string"},
           {"{{ 1 + 'a' }}", "an integer + a string"},
           {"{{ 'a' < 1 }}", "a string < an integer"},
           {"{{ 1.5 }}", "a number that begins with 1."},
           {"{{ 01 }}", "the number 01"},
           {"{{ 99999999999999999999 }}", "the number 99999999999999999999"},
           {"{{ 9223372036854775807 + 1 }}", "an integer past 64 bits"},
           {"{{ 1 // 0 }}", "a division by zero"},
           {"{{ 1 / 2 }}", "the operator /"},
           {"{{ +1 + +1 }}", "a + before a value"},
           {"{{ (1, 2) }}", "a tuple"},
           {"{{ 1, 2 }}", "a tuple in {{ }}"},
           {"{{ messages }}", "a list where text is needed"},
           {"{{ {1: 2} }}", "an integer as a key"},
           {"{{ 'ß' | upper }}", "letters beyond ASCII"},
           {"{{ [namespace()] }}", "a namespace in a list"},
           {"{% set ns = namespace() %}{% set ns.a = ns %}", "a namespace in a namespace"},
           {"{% set ns = namespace(_a=1) %}", "the attribute _a of a namespace"},
           {"{% set a.b = 1 %}", "a.b in {% set %}"},
           {"{% set a, b = 1 %}", "several variables in {% set %}"},
           {"{% set x = messages | map(attribute='role') %}", "an iterator (| list makes it a list) in {% set %}"},
           {"{% set ns = namespace(x=1) %}{% for m in messages if ns.x %}{% endfor %}", "a namespace in the condition of a for"},
           {"{% for m in 5 %}{% endfor %}", "an integer where a list is needed"},
           {"{% for a, b in ['xyz'] %}{% endfor %}", "3 values for 2 loop variables"},
           {"{% for m in messages recursive %}{% endfor %}", "a recursive loop"},
           {"{{ 'a' | trim(1, 2) }}", "the filter trim with 2 arguments"},
           {"{{ 'a' | trim(foo=1) }}", "the filter trim with the argument foo"},
           {"{{ 'a' | replace('b') }}", "the filter replace without its argument new"},
           {"{{ range(100001) }}", "a range of 100001"},
           {"{% if 1 %}", "in a block that was opened in line 1, expected {% endif %}"},
           {"{% endfor %}", "the statement {% endfor %}"},
           {"{% for x in [] %}{% endif %}", "the statement {% endif %}"},
           {"{% if 1 %}{% else x %}{% endif %}", "found \"x\", expected %}"},
           {"{{ 'a", "a string without its end"},
           {"{{ '\\u12' }}", "a broken \\x, \\u or \\U"},
           {"{{ 1", "an output {{ without its end"},
           {"{% if", "a block {% without its end"},
           {"{# a", "a comment {# without its end"},
           {"{{ ; }}", "the character ;"},
           {"{{ a b }}", "found \"b\", expected }}"},
           {"{{ ) }}", "a ) without its opening bracket"},
           {"{% break %}", "break outside of a loop"},
           {"\xff", "a chat template that is not UTF-8"},
           {"{{ raise_exception('no ' ~ 'way') }}", "a conversation that the template refuses: no way"},
       })
    EXPECT_THAT(error_of([&, s = source] { render(s); }), HasSubstr(says)) << source;
}

TEST(ChatTemplate, Shared) {
  const ChatTemplate a("{{ messages[0].content }}", "model"), b = a;
  EXPECT_EQ(a.render(kTalk), b.render(kTalk));
}

}  // namespace
}  // namespace fathom::text

# The tests swap builds of the same modules in one VM.
Code.put_compiler_option(:ignore_module_conflict, true)

ExUnit.start()

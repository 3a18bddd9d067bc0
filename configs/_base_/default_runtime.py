_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['mmgn'], allow_failed_imports=False)
custom_hooks = [dict(type='RunRecordHook')]
